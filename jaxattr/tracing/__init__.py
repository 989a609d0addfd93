"""How a function is read."""
