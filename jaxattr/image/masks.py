"""Masks over images, drawn at random or made of fewer parameters than there are pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxattr.image.filters import ceiling_reach, edge, filter_matrix, gaussian
from jaxattr.image.linear import separable
from jaxattr.types import Array, Key


def grid_mask(
    key: Key, size: tuple[int, int], *, cells: int, probability: float, dtype: DTypeLike
) -> Array:
    """Draw a mask of RISE: a grid of zeros and ones, enlarged and cropped at random.

    `cells x cells` numbers, each 1 with the given probability, are enlarged bilinearly to
    `(cells + 1) C` pixels a side, `C = ceil(side / cells)`, and cropped to the size of the image
    at an offset that is uniform on `0..C-1`. Beyond its outermost centers the grid is mirrored.

    Args:
        key: what the mask depends on.
        size: `(H, W)`.
        cells: of the grid, a side.
        probability: of a cell to be 1.
        dtype: of the result.

    Returns:
        `(H, W)`, in [0, 1]; every pixel has the mean `probability`.

    Reference:
        Petsiuk, Das and Saenko, RISE, BMVC 2018, section 3.2 and the authors' code.
    """
    drawn, down, across = jax.random.split(key, 3)
    grid = jax.random.bernoulli(drawn, probability, (cells, cells)).astype(dtype)
    rows = _enlargement(down, size[0], cells)
    columns = _enlargement(across, size[1], cells)
    return separable(grid, rows, columns, (0, 1))


def _enlargement(key: Key, pixels: int, cells: int) -> Array:
    """Return the matrix `(pixels, cells)` that enlarges and crops one axis."""
    cell = -(-pixels // cells)
    offset = jax.random.randint(key, (), 0, cell)
    at = ((jnp.arange(pixels) + offset).astype(float) + 0.5) * (cells / ((cells + 1) * cell)) - 0.5
    last = cells - 1
    mirrored = last - jnp.abs(last - jnp.abs(at))
    return jnp.maximum(1 - jnp.abs(mirrored[:, None] - jnp.arange(cells, dtype=float)[None]), 0)


def blurred_grid(grid: Array, size: tuple[int, int], *, spacing: int, sigma: float) -> Array:
    """Enlarge a grid: each number to a square, and those blurred by a Gaussian.

    Args:
        grid: `(..., h, w)`, `h = ceil(H / spacing)`, `w` likewise.
        size: `(H, W)`.
        spacing: sides of the squares in pixels.
        sigma: of the Gaussian in pixels. Edges are repeated.

    Returns:
        `(..., H, W)`, in the range of the grid.
    """
    kernel = gaussian(sigma, ceiling_reach(sigma))
    rows, columns = (filter_matrix(kernel, n, edge) @ _squares(n, spacing) for n in size)
    return separable(grid, rows, columns, (-2, -1))


def _squares(pixels: int, spacing: int) -> np.ndarray:
    return np.eye(-(-pixels // spacing)).repeat(spacing, 0)[:pixels]
