"""Published weights, read without torch and kept as Orbax checkpoints."""
