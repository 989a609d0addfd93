"""Models of Flax NNX, Equinox and Keras: names for their layers, and what to write instead."""
