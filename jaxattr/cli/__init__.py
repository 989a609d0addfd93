"""The command line.

- `main`: the command `jaxattr` and its subcommands.
- `explain`: draw maps of photographs.
- `listings`: the methods and the models that there are.
- `inputs`: photographs and classes by name.
- `files`: the names of what is written, and writing it.
- `running`: compile and run over batches, and say how long that takes.
- `errors`: bad input is refused in one sentence.
"""
