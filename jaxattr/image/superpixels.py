"""Images parted into superpixels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxattr.types import Array


class Superpixels(NamedTuple):
    """The parts of images.

    Attributes:
        labels: which part a pixel is in, int `(B, H, W)`.
        number: how many parts there are.
    """

    labels: Array
    number: int

    def pixels(self) -> Array:
        """Return how many pixels each part has, `(B, number)`."""
        return jax.vmap(lambda a: jnp.zeros(self.number, int).at[a.ravel()].add(1))(self.labels)

    def painted(self, values: Array) -> Array:
        """Give every pixel its part's value: `(B, number)`, or `(number,)` of all, to `(B, H, W)`.

        >>> import jax.numpy as jnp
        >>> parted(None, (1, 1, 4), cells=2).painted(jnp.array([5, 7])).tolist()
        [[[5, 5, 7, 7]]]
        """
        if values.ndim == 1:
            return values[self.labels]
        return jax.vmap(lambda value, label: value[label])(values, self.labels)

    def spread(self, values: Array) -> Array:
        """Share the value of each part among its pixels, so that they sum to it: `(B, H, W)`."""
        return self.painted(values / jnp.maximum(self.pixels(), 1).astype(values.dtype))


def parted(superpixels: ArrayLike | None, shape: tuple[int, ...], *, cells: int) -> Superpixels:
    """Return the parts that are given for images of shape `(B, H, W)`, or squares.

    Args:
        superpixels: int `(B, H, W)`, or `(H, W)` for all images, numbered from 0; or None.
        shape: `(B, H, W)`.
        cells: how many squares there are down, and across, where no parts are given.

    Raises:
        ValueError: if labels do not fit the images or are negative, or are not known, under `jit`:
            then how many there are is not known.
    """
    if superpixels is None:
        labels = np.broadcast_to(squares(shape[1:], cells), shape)
        return Superpixels(jnp.asarray(labels), int(labels.max()) + 1)
    if isinstance(superpixels, Tracer):
        raise ValueError(
            "superpixels are an argument of a function under jit, so that their number is not "
            "known: close over them"
        )
    labels = np.asarray(superpixels)
    fits = labels.shape in (shape, shape[1:]) and np.issubdtype(labels.dtype, np.integer)
    if not fits or labels.min() < 0:
        lowest = f" and a lowest label of {labels.min()}" if fits else f" and dtype {labels.dtype}"
        raise ValueError(
            f"superpixels have shape {labels.shape}{lowest}; expected whole numbers from 0, of "
            f"shape {shape}, or {shape[1:]} for all images"
        )
    return Superpixels(jnp.asarray(np.broadcast_to(labels, shape)), int(labels.max()) + 1)


def squares(size: tuple[int, ...], cells: int) -> np.ndarray:
    """Number the cells of a grid laid over the pixels, row by row, int `(H, W)`.

    There are `cells` down and across, or as many as there are pixels.

    >>> squares((2, 5), 2).tolist()
    [[0, 0, 0, 1, 1], [2, 2, 2, 3, 3]]
    """
    counts = [min(cells, n) for n in size]
    rows, columns = (np.arange(n) * k // n for n, k in zip(size, counts, strict=True))
    return rows[:, None] * counts[1] + columns
