"""Pointing games on grids of images: how much of a map lies in the cells of its class."""

import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_positive, is_concrete
from jaxattr.image.maps import heatmap
from jaxattr.metrics.arguments import booleans
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array


def grid_pointing_game(
    attribution: Array, cell: Array, *, cells: int = 2, reduce: Reduction = heatmap
) -> Score:
    """Return how much of the positive attribution lies in the cell of the class explained.

        score = sum_{p in cell} max(a_p, 0) / sum_p max(a_p, 0)

    Higher is better; a uniform map has `1 / cells^2`. The paper averages over all cells of all
    grids, each explained for the class of its image. Grids are made by `image_grids`, and for the
    variants DiFull and DiPart the model by `difull` and `dipart`.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)` of grids.
        cell: the number of the cell, in reading order, int `(B,)`.
        cells: of a side.
        reduce: how the channels of an attribution become one number.

    Returns:
        The share; no score where the map is not finite or nowhere positive.

    Raises:
        ValueError: if shapes do not fit, or there is no such cell.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[3.0, 1.0], [-5.0, 0.0]]])
        >>> grid_pointing_game(a, jnp.array([0])).score.item()
        0.75

    Reference:
        Boehle, Fritz and Schiele, Convolutional dynamic alignment networks, CVPR 2021, section
        4.2; Rao, Boehle and Schiele, Towards better understanding attribution methods, CVPR 2022.
    """
    check_positive("cells", cells)
    cell = jnp.asarray(cell)
    if cell.shape != (len(attribution),) or not jnp.issubdtype(cell.dtype, jnp.integer):
        raise ValueError(
            f"cell has shape {cell.shape} and dtype {cell.dtype}; expected the number of a cell "
            f"for each map, ({len(attribution)},)"
        )
    if is_concrete(cell):
        values = np.asarray(cell)
        if (wrong := (values < 0) | (values >= cells**2)).any():
            i = int(wrong.argmax())
            raise ValueError(f"cell[{i}] is {values[i]}; the cells are 0 to {cells**2 - 1}")
    return focus(attribution, cell[:, None] == jnp.arange(cells**2), cells=cells, reduce=reduce)


def focus(attribution: Array, cell: Array, *, cells: int = 2, reduce: Reduction = heatmap) -> Score:
    """Return how much of the positive attribution lies in the cells that show the class explained.

    It is `grid_pointing_game` with several cells of one class: in the paper two of four images are
    of the class, and two of others. Higher is better; a uniform map has half.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)` of grids.
        cell: which cells show the class, in reading order, bool `(B, cells^2)`.
        cells: of a side.
        reduce: how the channels of an attribution become one number.

    Returns:
        The share; no score where no cell shows the class, or the map is not finite or nowhere
        positive.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[3.0, 1.0], [4.0, 0.0]]])
        >>> focus(a, jnp.array([[True, True, False, False]])).score.item()
        0.5

    Reference:
        Arias-Duart, Pares, Garcia-Gasulla and Gimenez-Abalos, Focus! Rating XAI methods and finding
        biases, FUZZ-IEEE 2022.
    """
    check_positive("cells", cells)
    scores = reduced(attribution, reduce)
    cell = booleans("cell", cell, (len(scores), cells**2))
    energy = jnp.maximum(scores, 0)
    numbers = cell_numbers(scores.shape[1:], cells)
    within = jnp.where(jnp.take(cell, numbers, axis=1), energy, 0).sum((1, 2))
    total = energy.sum((1, 2))
    valid = (total > 0) & cell.any(1) & finite(scores)
    return scored(within / jnp.where(total > 0, total, 1), valid)


def cell_numbers(size: tuple[int, ...], cells: int) -> np.ndarray:
    """Number the cells of a grid in reading order: `(H, W)`.

    >>> cell_numbers((2, 4), 2).tolist()
    [[0, 0, 1, 1], [2, 2, 3, 3]]
    """
    rows, columns = (np.arange(n) * cells // n for n in size)
    return rows[:, None] * cells + columns
