"""What an image is without its evidence."""

import jax.numpy as jnp
import numpy as np

from jaxattr.types import Array


def blur(x: Array, *, size: int = 11, sigma: float = 5.0) -> Array:
    """Blur images as RISE does before it inserts pixels.

    The kernel is what becomes of an impulse in the middle of `size` values when a Gaussian with
    mirrored borders goes over them: it sums to 1, and is flatter than a Gaussian cut off at its
    edges. Beyond its borders the image counts as 0, so the result fades there.

    Args:
        x: `(B, H, W, C)`.
        size: odd number of pixels.
        sigma: standard deviation in pixels, cut off at 4 of them.

    Returns:
        The shape and dtype of `x`.

    Raises:
        ValueError: if `size` is even or less than 1.

    Example:
        >>> import jax.numpy as jnp
        >>> dot = jnp.zeros((1, 11, 11, 1)).at[0, 5, 5, 0].set(1)
        >>> print(f"{blur(dot)[0, 5, 5, 0]:.7f} {blur(dot)[0, 0, 0, 0]:.7f}")
        0.0088326 0.0077366

    Reference:
        Petsiuk, Das and Saenko, RISE, BMVC 2018, authors' code.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; expected an odd number of pixels")
    kernel = _mirrored_gaussian(size, sigma)
    return _along(_along(x, kernel, axis=1), kernel, axis=2)


def _mirrored_gaussian(size: int, sigma: float) -> np.ndarray:
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    places = (np.arange(size)[:, None] + offsets) % (2 * size)
    middle = np.minimum(places, 2 * size - 1 - places) == size // 2
    return (middle * weights).sum(1) / weights.sum()


def _along(x: Array, kernel: np.ndarray, *, axis: int) -> Array:
    half, length = len(kernel) // 2, x.shape[axis]
    wide = jnp.pad(x, [(half, half) if i == axis else (0, 0) for i in range(x.ndim)])
    at = [slice(None)] * axis
    shifted = (wide[*at, i : i + length] for i in range(len(kernel)))
    return sum((float(w) * s for w, s in zip(kernel, shifted, strict=True)), jnp.zeros_like(x))
