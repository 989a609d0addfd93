"""Many evaluations in bounded memory.

- `chunks`: samples parted into chunks of about equal size.
- `moments`: the mean and the variance of samples, a chunk at a time.
- `variants`: a model's answers for many variants of its images.
- `batching`: batches larger than memory.
- `optimization`: parameters fitted for every image on its own.
- `quadrature`: points and weights of an integral.
- `progress`: how far a loop has come.
- `precision`: the dtype in which a loop accumulates.
- `host`: Python called from a compiled program.
"""
