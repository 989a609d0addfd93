"""What metrics are given: numbers of any real dtype, masks, sizes, all checked in one place."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxattr.contract import check_images, is_concrete
from jaxattr.loops.precision import at_least_float32
from jaxattr.types import Array


def real(name: str, values: ArrayLike) -> Array:
    """Return numbers of any real dtype in at least float32, in which every metric computes.

    Maps are saved as bytes, or computed in half precision: there a negated 0 is still the
    smallest number, and a sum overflows.

    Args:
        name: of the argument.
        values: of any shape; bools are 0 and 1.

    Raises:
        ValueError: if they are not real numbers.

    Example:
        >>> import numpy as np
        >>> (-real("score", np.array([0, 3], np.uint8))).tolist()
        [-0.0, -3.0]
    """
    a = jnp.asarray(values)
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        raise ValueError(f"{name} has dtype {a.dtype}; expected real numbers")
    return at_least_float32(a)


def batch_of(x: ArrayLike) -> Array:
    """Return images as an array, or raise `ValueError` if they are no batch of them."""
    x = jnp.asarray(x)
    check_images(x)
    return x


def booleans(name: str, values: ArrayLike, shape: tuple[int | str, ...]) -> Array:
    """Return an array of bools, such as a mask, or say what it is instead.

    Args:
        name: of the argument.
        values: the bools.
        shape: that they must have, a word standing for any number.

    Raises:
        ValueError: if the dtype is not bool, or the shape another.

    Example:
        >>> booleans("mask", [[True]], ("height", 2))
        Traceback (most recent call last):
        ValueError: mask has shape (1, 1) and dtype bool; expected bool (height, 2)
    """
    a = jnp.asarray(values)
    if a.dtype != bool or not _fits(a.shape, shape):
        raise ValueError(
            f"{name} has shape {a.shape} and dtype {a.dtype}; expected bool {_written(shape)}"
        )
    return a


def image_sizes(sizes: ArrayLike, mask: Array) -> Array:
    """Return heights and widths of the images that masks of a common shape belong to.

    Args:
        sizes: int `(B, 2)`, at most the height and width of the masks; 0 for no image.
        mask: `(B, H, W)`.

    Raises:
        ValueError: if the shape or dtype is another, or a known size does not fit.
    """
    a, (batch, *largest) = jnp.asarray(sizes), mask.shape
    if a.shape != (batch, 2) or not jnp.issubdtype(a.dtype, jnp.integer):
        raise ValueError(
            f"sizes has shape {a.shape} and dtype {a.dtype}; expected a whole height and width "
            f"for each image, ({batch}, 2)"
        )
    if is_concrete(a) and (wrong := fits_not(np.asarray(a), largest)).any():
        i = int(wrong.argmax())
        raise ValueError(
            f"sizes[{i}] is {np.asarray(a)[i].tolist()}; the masks are padded to {largest}"
        )
    return a


def fits_not(sizes: Any, largest: list[int] | tuple[int, ...]) -> Any:
    """Mark the images that are larger than what they are padded to, or of a negative size."""
    return ((sizes < 0) | (sizes > np.array(largest))).any(-1)


def check_range(name: str, value: Any, low: float, high: float = np.inf) -> None:
    """Raise `ValueError` unless an option is one number between two bounds, both included.

    >>> check_range("fraction", 40, 0, 1)
    Traceback (most recent call last):
    ValueError: fraction is 40; expected one number from 0 to 1
    """
    expected = f"expected one number from {low} to {high}"
    if (shape := np.shape(value)) != ():
        raise ValueError(f"{name} has shape {shape}; {expected}")
    if is_concrete(value) and not low <= float(value) <= high:
        raise ValueError(f"{name} is {value}; {expected}")


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(w, str) or n == w for n, w in zip(shape, wanted, strict=True)
    )


def _written(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(str(n) for n in shape)}{',' if len(shape) == 1 else ''})"
