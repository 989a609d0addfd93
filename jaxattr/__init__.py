"""Attribution maps for image classifiers as function transformations in JAX."""
