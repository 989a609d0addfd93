"""A window sliding over an array, seen as a few shifted views of the whole array.

A pool, and a convolution that keeps channels apart, is a sum (or a maximum) over the *taps* of a
small window: `y[p] = sum_t w[t] * x[stride * p + dilation * t - low]`. Written as one array per
tap, XLA's CPU backend fuses it into a single pass at the speed of memory; its own loop per output
element is ten to forty times slower. `views` lists those arrays. `spread` is the transpose: what
each element of the array gathers back from the positions that saw it.

Where the stride `s` is larger than one both work on *phases*: element `s * q + r` is entry `(q, r)`
of a reshaped array, so that each tap still reads a contiguous block of `q`.
"""

import itertools
import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.types import Array

Tap = tuple[int, ...]

MAX_TAPS = 127
"""Windows with more are left to XLA: one array per tap, numbered in int8."""


class Axis(NamedTuple):
    """How a window slides along one axis of `length` elements; the padding may be negative."""

    length: int
    size: int = 1
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1

    @property
    def positions(self) -> int:
        """How many positions the window takes."""
        reach = (self.size - 1) * self.dilation + 1
        return max(0, (self.length + self.low + self.high - reach) // self.stride + 1)


Window = tuple[Axis, ...]


def taps(window: Window) -> list[Tap]:
    """List the offsets inside a window, in row-major order."""
    return list(itertools.product(*(range(a.size) for a in window)))


def views(x: Array, window: Window, fill: float = 0) -> list[Array]:
    """List what each tap sees, in row-major order: arrays with an entry per window position.

    Args:
        x: an array with the lengths of `window`.
        window: one `Axis` per axis of `x`.
        fill: the value of the padding.
    """
    phases, starts = _phases(x, window, fill)
    sizes = [n for a in window for n in (a.positions, 1)]
    shape = [a.positions for a in window]
    ends = [[i + n for i, n in zip(start, sizes, strict=True)] for start in starts]
    return [lax.reshape(lax.slice(phases, *at), shape) for at in zip(starts, ends, strict=True)]


def each_view(f: Callable[[Array], Array], x: Array, window: Window) -> Array:
    """Apply a function to what each tap sees, in a loop: `stack(map(f, views(x, window)))`.

    For a function that does not fuse with its neighbors, such as a sum over all positions, of which
    a program would have one for each tap.
    """
    phases, starts = _phases(x, window, 0)
    sizes = [n for a in window for n in (a.positions, 1)]
    shape = [a.positions for a in window]
    seen = lambda start: lax.dynamic_slice(phases, list(start), sizes).reshape(shape)
    return lax.map(lambda start: f(seen(start)), jnp.asarray(starts, jnp.int32))


def _phases(x: Array, window: Window, fill: float) -> tuple[Array, list[list[int]]]:
    """Return an array as a grid of blocks and phases, and where in it each tap begins to read."""
    counts = [(a.size - 1) * a.dilation // a.stride + a.positions for a in window]
    pads = [
        (a.low, count * a.stride - a.length - a.low)
        for a, count in zip(window, counts, strict=True)
    ]
    grid = [n for a, count in zip(window, counts, strict=True) for n in (count, a.stride)]
    phases = _pad(x, fill, pads).reshape(grid)
    offsets = (
        [divmod(t * a.dilation, a.stride) for t, a in zip(tap, window, strict=True)]
        for tap in taps(window)
    )
    return phases, [[i for pair in offset for i in pair] for offset in offsets]


def spread(term: Callable[..., Array], window: Window, *outputs: Array, fill: float = 0) -> Array:
    """Gather at each element a term from every window position that sees it.

    The transpose of `sum(term(i, view))` over the `views`, for a `term` linear in the view.

    Args:
        term: `term(i, *arrays)`: what tap number `i` gives, the arrays aligned with its elements.
        window: one `Axis` per axis.
        *outputs: arrays with an entry per window position.
        fill: their value where there is no position.

    Returns:
        An array with the lengths of `window`.
    """
    # Tap t sees element `s q + r` from position `q - shift`, wherever the shift is whole.
    shifts = [
        [
            [
                (t, (t * a.dilation - a.low - r) // a.stride)
                for t in range(a.size)
                if (t * a.dilation - a.low - r) % a.stride == 0
            ]
            for r in range(a.stride)
        ]
        for a in window
    ]
    blocks = [math.ceil(a.length / a.stride) for a in window]
    reach = [[shift for phase in axis for _, shift in phase] for axis in shifts]
    pads = [
        (max(r), block - min(r) - a.positions)
        for a, r, block in zip(window, reach, blocks, strict=True)
    ]
    padded = [_pad(y, fill, pads) for y in outputs]
    number = {tap: i for i, tap in enumerate(taps(window))}

    def phase(residues: Tap) -> Array:
        terms = []
        for seen in itertools.product(*(axis[r] for axis, r in zip(shifts, residues, strict=True))):
            begins = [low - shift for (_, shift), (low, _) in zip(seen, pads, strict=True)]
            ends = [begin + block for begin, block in zip(begins, blocks, strict=True)]
            parts = (lax.slice(y, begins, ends) for y in padded)
            terms.append(term(number[tuple(t for t, _ in seen)], *parts))
        return reduce(lax.add, terms) if terms else jnp.zeros(blocks, outputs[0].dtype)

    strides = [a.stride for a in window]
    phases = [phase(r) for r in itertools.product(*map(range, strides))]
    return _interleave(phases, strides)[tuple(slice(a.length) for a in window)]


def repeat(y: Array, window: Window) -> Array | None:
    """Give each element what the only position that sees it has; None if others see it too."""
    if any((a.stride, a.low, a.dilation) != (a.size, 0, 1) for a in window):
        return None
    grid = [n for a in window for n in (a.positions, a.size)]
    split = jnp.broadcast_to(y.reshape([n for a in window for n in (a.positions, 1)]), grid)
    whole = split.reshape([a.positions * a.size for a in window])
    return lax.pad(
        whole,
        jnp.zeros((), y.dtype),
        [(0, a.length - n, 0) for a, n in zip(window, whole.shape, strict=True)],
    )


def widened(f: Callable[..., Array]) -> Callable[..., Array]:
    """Compute a function of arrays of short floats in float32, and round once."""

    def wide(*args: Any) -> Array:
        dtype = args[-1].dtype
        to = jnp.promote_types(dtype, jnp.float32)
        return f(*(a.astype(to) if isinstance(a, jax.Array) else a for a in args)).astype(dtype)

    return wide


def _pad(x: Array, fill: float, pads: list[tuple[int, int]]) -> Array:
    """Pad or crop, and keep the result in memory: fused, every tap would test the bounds."""
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), [(low, high, 0) for low, high in pads])
    return lax.optimization_barrier(padded)


def _interleave(phases: list[Array], strides: list[int]) -> Array:
    """Put one array per phase, in row-major order, back on the grid."""
    if len(phases) == 1:
        return phases[0]
    blocks, rank = phases[0].shape, len(strides)
    grid = jnp.stack(phases).reshape(*strides, *blocks)
    order = [axis for i in range(rank) for axis in (rank + i, i)]
    return grid.transpose(order).reshape([b * s for b, s in zip(blocks, strides, strict=True)])
