"""The command line.

- `main`: the command `jaxattr` and its subcommands.
- `explain`: draw maps of photographs.
- `runs`: run over a data set, evaluate, report.
- `listings`: the methods and the models that there are.
- `storage`: what is kept on disk, listed and cleared.
- `inputs`: photographs and classes by name.
- `photographs`: photographs as a model's input, one after the other.
- `explaining`: a batch of them explained, and what is found written.
- `files`: the names of what is written, what a file says of its origin, and writing it.
- `running`: compile and run over batches, and say how long that takes.
- `interrupts`: Ctrl-C ends the program at once.
- `errors`: bad input is refused in one sentence.
"""
