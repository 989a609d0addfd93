"""What the pixels of an image are replaced by."""

from jaxattr.image.filters import filter_matrix, gaussian, reflect, rounded_reach, zero
from jaxattr.image.linear import separable
from jaxattr.types import Array


def blur(x: Array, *, size: int = 11, sigma: float = 5.0) -> Array:
    """Blur images as RISE does before it inserts pixels.

    The kernel is an impulse in the middle of `size` values, blurred by a Gaussian with reflecting
    borders: it sums to 1, and is flatter than a Gaussian cut off at its edges. The image is 0
    outside its borders, so the result fades there.

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
    spread = filter_matrix(gaussian(sigma, rounded_reach(sigma)), size, reflect)
    kernel = spread[:, size // 2]
    rows, columns = (filter_matrix(kernel, n, zero) for n in x.shape[1:3])
    return separable(x, rows, columns)
