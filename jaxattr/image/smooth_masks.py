"""Masks that are smooth and have a given area, for extremal perturbations."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.image.order import nth_smallest
from jaxattr.types import Array

T = TypeVar("T")

_SHARPNESS = 20.0
_SPELLED = 121  # terms; for a width of up to four times the spacing


class Axis(NamedTuple):
    """How parameters lie along one side of an image.

    Parameter `i` lies at pixel `i * spacing`. The mask is drawn on a canvas that reaches `margin`
    pixels beyond the image, in cells of `spacing` pixels; the pixels of a cell see the same
    parameters, `radius` to either side of the cell's own.

    Attributes:
        pixels: of the image.
        parameters: how many.
        margin: pixels of the canvas before the image.
        canvas: pixels of the canvas.
        first: the first cell.
        cells: how many.
        radius: in parameters.
    """

    pixels: int
    parameters: int
    margin: int
    canvas: int
    first: int
    cells: int
    radius: int


def axis(pixels: int, spacing: int, sigma: float) -> Axis:
    """Lay out one side of an image."""
    parameters, margin = -(-pixels // spacing), int(np.ceil(sigma))
    canvas = max(spacing * (parameters - 1) + 2 * margin + 1, margin + pixels)
    first = -margin // spacing
    last = (canvas - margin - 1) // spacing
    radius = 1 + int(np.ceil(sigma / spacing))
    return Axis(pixels, parameters, margin, canvas, first, last - first + 1, radius)


def smooth_mask(
    parameters: Array, size: tuple[int, int], *, spacing: int, sigma: float
) -> tuple[Array, Array]:
    """Make masks of parameters by a smooth maximum over kernels.

        m(u) = smax_i k(|u - spacing i| / sigma) p_i,    k(z) = exp(-2 max(z - 1/2, 0)^2),
        smax(a) = sum_i a_i e^(20 a_i) / sum_i e^(20 a_i)

    Args:
        parameters: `(..., h, w)`, in [0, 1], `h = ceil(H / spacing)`, `w` likewise.
        size: `(H, W)`.
        spacing: of the parameters in pixels.
        sigma: width of the kernel in pixels.

    Returns:
        The masks `(..., H, W)`, and what they are cut from, `(..., H', W')`, larger by the margins.

    Reference:
        Fong, Patrick and Vedaldi, Extremal perturbations, ICCV 2019, section 3.1, and TorchRay,
        whose `sigma` must be a multiple of `spacing`.
    """
    axes = [axis(pixels, spacing, sigma) for pixels in size]
    beyond = [(a.radius - a.first, a.first + a.cells + a.radius - a.parameters) for a in axes]
    grids = parameters.reshape(-1, *parameters.shape[-2:])
    padded = jnp.pad(grids, ((0, 0), *beyond))
    weights = jnp.asarray(_kernel(axes, spacing, sigma), parameters.dtype)
    cells = axes[0].cells, axes[1].cells
    parts = jnp.asarray(_smooth_maximum(cells, padded, weights))
    parts = parts.reshape(spacing, spacing, -1, *cells).transpose(2, 3, 0, 4, 1)
    canvas = parts.reshape(*parameters.shape[:-2], *(spacing * n for n in cells))
    for i, a in zip((-2, -1), axes, strict=True):
        spare = -a.margin % spacing
        canvas = lax.slice_in_dim(canvas, spare, spare + a.canvas, axis=canvas.ndim + i)
    (top, left), (height, width) = (a.margin for a in axes), size
    return canvas[..., top : top + height, left : left + width], canvas


def _kernel(axes: list[Axis], spacing: int, sigma: float) -> np.ndarray:
    """Return the weight of each parameter around a cell for each of its pixels.

    `(pixels of a cell, parameters around it)`, both in reading order.
    """
    down, across = (
        np.arange(spacing)[:, None] - spacing * np.arange(-a.radius, a.radius + 1) for a in axes
    )
    distance = np.hypot(down[:, None, :, None], across[None, :, None, :]) / sigma
    return np.exp(-2 * np.maximum(distance - 0.5, 0) ** 2).reshape(spacing**2, -1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _smooth_maximum(cells: tuple[int, int], padded: Array, weights: Array) -> Array:
    """Return the smooth maximum for each pixel of the cells, `(pixels of a cell, n, *cells)`.

    The terms for a pixel are spelled out, so that XLA makes one loop of them; left to autodiff, or
    spelled as sums of a large array, this takes ten times as long.
    """
    return _values(cells, padded, weights)[0]


def _values(cells: tuple[int, int], padded: Array, weights: Array) -> tuple[Array, Array]:
    rows, columns = (n - c + 1 for n, c in zip(padded.shape[1:], cells, strict=True))

    def pixel(weights: Array) -> tuple[Array, Array]:
        def add(i: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            row = _slice(padded, i, cells[0], axis=1)
            above, below = sums
            for j in range(columns):
                term = weights[i * columns + j] * _slice(row, j, cells[1], axis=2)
                e = jnp.exp(_SHARPNESS * term)
                above, below = above + term * e, below + e
            return above, below

        zeros = jnp.zeros_like(padded[:, : cells[0], : cells[1]])
        above, below = _repeat(add, rows, (zeros, zeros), each=columns)
        return above / below, below

    return lax.map(pixel, weights)


def _slice(a: Array, start: Any, size: int, axis: int) -> Array:
    if isinstance(start, int):
        return lax.slice_in_dim(a, start, start + size, axis=axis)
    return lax.dynamic_slice_in_dim(a, start, size, axis)


def _repeat(add: Callable[[Any, T], T], count: int, sums: T, *, each: int = 1) -> T:
    """Add terms to sums, spelled out unless there are so many that XLA compiles for minutes.

    Args:
        add: from the number of a turn, and sums, to sums.
        count: how many turns.
        sums: to start with.
        each: terms of a turn.
    """
    if count * each > _SPELLED:
        return lax.fori_loop(0, count, add, sums)
    for k in range(count):
        sums = add(k, sums)
    return sums


def _forward(
    cells: tuple[int, int], padded: Array, weights: Array
) -> tuple[Array, tuple[Array, ...]]:
    maximum, below = _values(cells, padded, weights)
    return maximum, (padded, weights, maximum, below)


def _backward(
    cells: tuple[int, int], saved: tuple[Array, ...], cotangent: Array
) -> tuple[Array, Array]:
    """`d smax / d a_k = e^(c a_k) / sum_i e^(c a_i) (1 + c a_k - c smax)`, one `k` at a time."""
    padded, weights, maximum, below = saved
    share = cotangent / below
    rest = share * (1 - _SHARPNESS * maximum)
    rows, columns = (n - c + 1 for n, c in zip(padded.shape[1:], cells, strict=True))
    down, across = jnp.divmod(jnp.arange(rows * columns), columns)
    shape = (len(padded), *cells)

    def around(total: Array, view: tuple[Array, Array, Array]) -> tuple[Array, None]:
        i, j, weights = view
        parameter = lax.dynamic_slice(padded, (0, i, j), shape)

        def add(k: Any, gradient: Array) -> Array:
            term = _SHARPNESS * weights[k] * parameter
            return gradient + weights[k] * jnp.exp(term) * (rest[k] + share[k] * term)

        gradient = _repeat(add, len(share), lax.dynamic_slice(total, (0, i, j), shape))
        return lax.dynamic_update_slice(total, gradient, (0, i, j)), None

    total, _ = lax.scan(around, jnp.zeros_like(padded), (down, across, weights.T))
    return total, jnp.zeros_like(weights)


_smooth_maximum.defvjp(_forward, _backward)


def area_penalty(masks: Array, areas: Sequence[float]) -> Array:
    """Measure how far masks are from covering a share of their pixels and nothing else.

        || vecsort(m) - r_a ||^2 / N,    r_a = (0, ..., 0, 1, ..., 1) with (1 - a) N zeros

    Nothing is sorted: the largest pixels are those above a threshold, which is found by bisection.
    The order of pixels that equal it up to rounding does not change the value; the derivative is
    its mean over these orders, so that it depends neither on rounding nor on the pixels' places.

    Args:
        masks: `(..., areas, N)`, not negative.
        areas: `a`, a number for each along the last axis but one.

    Returns:
        `(..., areas)`.

    Reference:
        Fong, Patrick and Vedaldi, Extremal perturbations, ICCV 2019, eq. 4.
    """
    n = masks.shape[-1]
    kept = jnp.asarray([min(int(n * (1 - a)), n - 1) for a in areas])
    zeros = jnp.broadcast_to(kept, masks.shape[:-1])
    fixed = lax.stop_gradient(masks)
    threshold, tolerance = nth_smallest(fixed, zeros)[..., None], 8 * jnp.finfo(masks.dtype).eps
    over, under = fixed > threshold + tolerance, fixed < threshold - tolerance
    level = n - (over | under).sum(-1, keepdims=True)
    share = ((n - zeros[..., None] - over.sum(-1, keepdims=True)) / level).astype(masks.dtype)
    distance = ((masks - jnp.where(over, 1, jnp.where(under, 0, share))) ** 2).mean(-1)
    return distance + (share * (1 - share) * level.astype(share.dtype) / n)[..., 0]
