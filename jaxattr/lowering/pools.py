"""Max and sum pools as shifted views, and their derivatives."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.lowering.transposes import linear, on_cpu
from jaxattr.lowering.windows import MAX_TAPS, Axis, Window, repeat, spread, taps, views, widened
from jaxattr.types import Array


def window_of(params: Mapping[str, Any], shape: tuple[int, ...]) -> Window | None:
    """Return the window of a `reduce_window` equation over an array of this shape.

    None where views do not serve: too many taps, a dilated array, no room for the window.
    """
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    axes = zip(shape, *(params[name] for name in names), strict=True)
    window = tuple(Axis(n, k, s, low, high, d) for n, k, s, (low, high), d in axes)
    fits = all(a.positions for a in window) and len(taps(window)) <= MAX_TAPS
    return window if fits and math.prod(params["base_dilation"]) == 1 else None


def sum_pool(params: Mapping[str, Any], x: Any) -> Callable[[Array], Array] | None:
    """Return `reduce_window_sum` of an array like `x`, and so average pooling, fast on the CPU."""
    window = window_of(params, x.shape)
    if window is None:
        return None

    def own(a: Array) -> Array:
        return lax.reduce_window(a, np.zeros((), a.dtype), lax.add, *_settings(params))

    def back(c: Array) -> Array:
        # Where windows do not overlap this is not only quicker: of equal copies put side by side
        # inside a fusion, XLA's CPU backend (jax 0.10.2) has read some from the wrong place.
        whole = repeat(c, window)
        return spread(lambda _, c: c, window, c) if whole is None else whole

    return linear(
        on_cpu(widened(lambda a: reduce(add, views(a, window))), own),
        on_cpu(
            widened(back),
            lambda c: jax.linear_transpose(own, x)(c)[0],
        ),
    )


def max_pool(params: Mapping[str, Any], x: Any) -> Callable[[Array], Array] | None:
    """Return `reduce_window_max` of an array like `x`, fast on the CPU.

    Its derivative goes to the first of the largest elements of a window in row-major order, as
    JAX's own does.
    """
    window = window_of(params, x.shape)
    if window is None:
        return None

    def own(a: Array) -> Array:
        return lax.reduce_window(a, np.asarray(-np.inf, a.dtype), lax.max, *_settings(params))

    gather = linear(
        on_cpu(
            lambda a, u: gather_from(winners(a, window), u, window),
            lambda a, u: jax.jvp(own, (a,), (u,))[1],
        ),
        on_cpu(
            lambda a, c: scatter_to(winners(a, window), c, window),
            lambda a, c: jax.vjp(own, a)[1](c)[0],
        ),
    )
    largest = on_cpu(lambda a: reduce(jnp.maximum, views(a, window, -jnp.inf)), own)
    pool = jax.custom_jvp(lambda a: largest(a))
    pool.defjvp(lambda a, u: (pool(*a), gather(*a, *u)))
    return pool


def winners(x: Array, window: Window) -> Array:
    """Return at each window position the number of the tap that holds the maximum, int8."""
    best, *others = views(x, window, -jnp.inf)
    index = jnp.zeros(best.shape, jnp.int8)
    for i, view in enumerate(others, start=1):
        larger = view > best
        best, index = jnp.where(larger, view, best), jnp.where(larger, jnp.int8(i), index)
    return index


@lru_cache(maxsize=1024)
def picking(window: Window) -> Callable[[Array, Array], Array]:
    """Return `gather_from` as a linear map of `x`, to differentiate any number of times."""
    return linear(
        lambda index, x: gather_from(index, x, window),
        lambda index, c: scatter_to(index, c, window),
    )


def gather_from(index: Array, x: Array, window: Window) -> Array:
    """Return at each window position the element of `x` that `index` points to."""
    first, *others = views(x, window)
    chosen = jnp.where(index == 0, first, 0)
    for i, view in enumerate(others, start=1):
        chosen = jnp.where(index == i, view, chosen)
    return chosen


def scatter_to(index: Array, c: Array, window: Window) -> Array:
    """Add each entry of `c` to the element that `index` points to: the transpose of a gather."""

    def term(i: int, c: Array, index: Array) -> Array:
        return jnp.where(index == i, c, 0)

    return spread(term, window, c, index)


def _settings(params: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
