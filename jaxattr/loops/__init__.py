"""Many evaluations in bounded memory.

- `sampling`: samples and variants of an image, a chunk at a time.
- `batching`: batches larger than memory.
- `optimization`: parameters fitted for every image on its own.
- `quadrature`: points and weights of an integral.
- `progress`: how far a loop has come.
- `host`: Python called from a compiled program.
"""
