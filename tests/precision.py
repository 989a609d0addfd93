"""Float64 for a block, by the name this release of JAX has for it."""

import jax
from jax import experimental

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else experimental.enable_x64
