"""Convolutions spelled as XLA's CPU backend runs them fastest, and their derivatives.

- A 1x1 kernel is a matrix product, and so is the derivative to the input of any kernel that does
  not overlap with itself from one position to the next.
- A depthwise convolution is a sum of shifted views (`windows.py`).
- The derivative to the input of any other is again a convolution: of the cotangent, dilated by the
  strides, with the kernel reversed and transposed *as an array*. Left to dimension numbers, as JAX
  leaves it, it falls to a naive loop inside `scan` and `map`, six to eleven times slower.

Figures are in `docs/speed.md`.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.lowering.transposes import bilinear, on_cpu
from jaxattr.lowering.windows import MAX_TAPS, Axis, Window, spread, views, widened
from jaxattr.types import Array

Spelling = Callable[[Array, Array], Array]


class Conv(NamedTuple):
    """A convolution with channels last: the shapes of its operands and how it is taken."""

    x: tuple[int, ...]  # (N, *spatial, C)
    w: tuple[int, ...]  # (*K, C / groups, O)
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    x_dilation: tuple[int, ...]
    w_dilation: tuple[int, ...]
    groups: int
    precision: Any


def convolution(params: Mapping[str, Any], x: Any, w: Any) -> Spelling | None:
    """Return `conv_general_dilated` of arrays like `x` and `w`, fast on the CPU.

    Returns:
        The function of `x` and `w`; None where operands and result differ in dtype, for empty and
        sharded results, and for batch groups.
    """
    settings = {k: v for k, v in params.items() if k != "out_sharding"}
    own = partial(lax.conv_general_dilated, **settings)
    y = jax.eval_shape(own, x, w)
    if not (_is_plain(params) and x.dtype == w.dtype == y.dtype and y.size):
        return None
    conv, order_x, order_w, order_y = _channels_last(params, x, w)
    value, to_input = _spelling(conv)

    def fast(x: Array, w: Array) -> Array:
        y = value(x.transpose(order_x), w.transpose(order_w))
        return y.transpose(np.argsort(order_y))

    def fast_to_input(w: Array, c: Array) -> Array:
        a = to_input(w.transpose(order_w), c.transpose(order_y))
        return a.transpose(np.argsort(order_x))

    return bilinear(
        on_cpu(fast, own),
        on_cpu(fast_to_input, lambda w, c: jax.linear_transpose(lambda x: own(x, w), x)(c)[0]),
        on_cpu(
            lambda x, c: jax.linear_transpose(partial(fast, x), w)(c)[0],
            lambda x, c: jax.linear_transpose(partial(own, x), w)(c)[0],
        ),
    )


def by_taps(params: Mapping[str, Any], x: Any, w: Any) -> Spelling | None:
    """Return `conv_general_dilated` of arrays like `x` and `w` as a matrix product for each tap.

    For a kernel of its own for every image, under `vmap`: then it is a batch of matrix products,
    and so are its derivatives. JAX's own is a convolution in as many groups, whose derivative to
    the kernel is wrong where the batch is sharded (jax 0.10.2), and which gathers the batch.

    Returns:
        The function of `x` and `w`; None for batch groups, dilated images and large kernels.
    """
    conv, order_x, order_w, order_y = _channels_last(params, x, w)
    few = math.prod(conv.w[:-2]) <= MAX_TAPS and math.prod(conv.x_dilation) == 1
    if not (few and _is_plain(params) and x.dtype == w.dtype):
        return None
    value, to_input = _spelling(conv)
    if value.func is _dense:
        value = partial(_taps, conv)
        to_input = lambda w, c: jax.linear_transpose(lambda x: value(x, w), _like(conv.x, c))(c)[0]

    def taken(x: Array, w: Array) -> Array:
        return value(x.transpose(order_x), w.transpose(order_w)).transpose(np.argsort(order_y))

    def taken_to_input(w: Array, c: Array) -> Array:
        a = to_input(w.transpose(order_w), c.transpose(order_y))
        return a.transpose(np.argsort(order_x))

    to_kernel = lambda x, c: jax.linear_transpose(partial(taken, x), w)(c)[0]
    return bilinear(taken, taken_to_input, to_kernel)


def _taps(conv: Conv, x: Array, w: Array) -> Array:
    """Convolve by a matrix product for each tap of the kernel."""
    *_, inputs, outputs = conv.w
    seen = views(x, (*_window(conv)[:-1], Axis(conv.x[-1])))
    kernel = w.reshape(-1, inputs, conv.groups, outputs // conv.groups)

    def product(seen: Array, w: Array) -> Array:
        parts = seen.reshape(*seen.shape[:-1], conv.groups, inputs)
        y = jnp.einsum("...gi,igo->...go", parts, w, precision=conv.precision)
        return y.reshape(*y.shape[:-2], outputs)

    return reduce(add, map(product, seen, kernel))


def _like(shape: tuple[int, ...], c: Array) -> Any:
    # Of the same devices, too, where the batch is split by `jax.shard_map`.
    return jax.eval_shape(lambda c: jnp.broadcast_to(c.ravel()[0], shape), c)


def _is_plain(params: Mapping[str, Any]) -> bool:
    return params["batch_group_count"] == 1 and params.get("out_sharding") is None


Order = tuple[int, ...]


def _channels_last(params: Mapping[str, Any], x: Any, w: Any) -> tuple[Conv, Order, Order, Order]:
    """Return a convolution with channels last, and how its operands and result are transposed."""
    lhs, rhs, out = params["dimension_numbers"]
    order_x, order_y = ((d[0], *d[2:], d[1]) for d in (lhs, out))
    order_w = (*rhs[2:], rhs[1], rhs[0])
    conv = Conv(
        tuple(x.shape[i] for i in order_x),
        tuple(w.shape[i] for i in order_w),
        tuple(params["window_strides"]),
        tuple((low, high) for low, high in params["padding"]),
        tuple(params["lhs_dilation"]),
        tuple(params["rhs_dilation"]),
        params["feature_group_count"],
        params["precision"],
    )
    return conv, order_x, order_w, order_y


def _spelling(conv: Conv) -> tuple[partial, partial]:
    """Return the value, of `(x, w)`, and the derivative to the input, of `(w, cotangent)`."""
    window, taps = _window(conv), math.prod(conv.w[:-2])
    value, to_input = _dense, _dense_to_input
    if math.prod(conv.x_dilation) == 1:
        if conv.groups == 1 and all((a.size - 1) * a.dilation < a.stride for a in window):
            value, to_input = _patches if taps == 1 else _dense, _patches_to_input
        elif conv.groups == conv.x[-1] > 1 and taps <= MAX_TAPS:
            value, to_input = _depthwise, _depthwise_to_input
    return partial(value, conv), partial(to_input, conv)


def _window(conv: Conv) -> Window:
    """Return the window of a convolution over the batch, its spatial axes and `O` channels."""
    sizes = zip(conv.x[1:-1], conv.w[:-2], conv.strides, conv.padding, conv.w_dilation, strict=True)
    spatial = (Axis(n, k, s, low, high, d) for n, k, s, (low, high), d in sizes)
    return (Axis(conv.x[0]), *spatial, Axis(conv.w[-1]))


def _patches(conv: Conv, x: Array, w: Array) -> Array:
    """Convolve, where windows do not overlap: cut the patches out, one matrix product."""
    window = _window(conv)[1:-1]
    pads = [(a.low, a.positions * a.stride - a.length - a.low, 0) for a in window]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    x = x.reshape(-1, *(n for a in window for n in (a.positions, a.stride)), conv.x[-1])
    cells = [slice(None, (a.size - 1) * a.dilation + 1, a.dilation) for a in window]
    x = x[(slice(None), *(i for cell in cells for i in (slice(None), cell)))]
    last = x.ndim - 1
    x = x.transpose(0, *range(1, last, 2), *range(2, last, 2), last)
    x = x.reshape(-1, *(a.positions for a in window), math.prod(conv.w[:-1]))
    return jnp.matmul(x, w.reshape(-1, conv.w[-1]), precision=conv.precision)


def _patches_to_input(conv: Conv, w: Array, c: Array) -> Array:
    return jax.linear_transpose(lambda x: _patches(conv, x, w), _like(conv.x, c))(c)[0]


@widened
def _depthwise(conv: Conv, x: Array, w: Array) -> Array:
    x = jnp.repeat(x, conv.w[-1] // conv.groups, axis=-1)
    seen = views(x, _window(conv))
    return reduce(add, (v * k for v, k in zip(seen, w.reshape(-1, conv.w[-1]), strict=True)))


@widened
def _depthwise_to_input(conv: Conv, w: Array, c: Array) -> Array:
    weights = w.reshape(-1, conv.w[-1])
    a = spread(lambda i, c: c * weights[i], _window(conv), c)
    return a.reshape(*conv.x, -1).sum(-1)


def _dense(conv: Conv, x: Array, w: Array) -> Array:
    spatial = range(1, len(conv.strides) + 1)
    last = len(conv.x) - 1
    return lax.conv_general_dilated(
        x,
        w,
        conv.strides,
        conv.padding,
        conv.x_dilation,
        conv.w_dilation,
        lax.ConvDimensionNumbers(
            (0, last, *spatial), (last, last - 1, *range(last - 1)), (0, last, *spatial)
        ),
        conv.groups,
        precision=conv.precision,
    )


def _dense_to_input(conv: Conv, w: Array, c: Array) -> Array:
    """Convolve the cotangent, dilated by the strides, with the kernel turned round."""
    *kernel, inputs, outputs = conv.w
    groups, rank = conv.groups, len(kernel)
    w = lax.rev(w, range(rank)).reshape(*kernel, inputs, groups, outputs // groups)
    w = jnp.moveaxis(w, rank, -1)  # (*K, groups, O / groups, C / groups)
    w = w.swapaxes(rank, rank + 1).reshape(*kernel, outputs // groups, groups * inputs)
    return _dense(_transposed(conv, c.shape), c, w)


def _transposed(conv: Conv, c: tuple[int, ...]) -> Conv:
    *kernel, inputs, outputs = conv.w
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, conv.w_dilation, strict=True)]
    padding = []
    for n, p, s, d, r, (low, _) in zip(
        conv.x[1:-1], c[1:-1], conv.strides, conv.x_dilation, reach, conv.padding, strict=True
    ):
        length, dilated = (n - 1) * d + 1, (p - 1) * s + 1
        padding.append((r - 1 - low, length + low - dilated))
    turned = (*kernel, outputs // conv.groups, conv.groups * inputs)
    return Conv(
        c,
        turned,
        conv.x_dilation,
        tuple(padding),
        conv.strides,
        conv.w_dilation,
        conv.groups,
        conv.precision,
    )
