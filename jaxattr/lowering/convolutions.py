"""Convolutions spelled as XLA's CPU backend runs them fastest, and their derivatives.

- A 1x1 kernel is a matrix product, and so is the derivative to the input of any kernel that does
  not overlap with itself from one position to the next.
- A depthwise convolution is a sum of shifted views (`windows.py`).
- A kernel larger than the image is a matrix product for each of its taps: XLA takes the image for
  the kernel there, and falls to a naive loop, ten to a hundred times slower.
- The derivative to the input of any other is again a convolution: of the cotangent, dilated by the
  strides, with the kernel reversed and transposed *as an array*. Left to dimension numbers, as JAX
  leaves it, it falls to a naive loop inside `scan` and `map`, six to eleven times slower.

Figures are in `docs/speed.md`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.lowering.transposes import bilinear, instead, on_cpu
from jaxattr.lowering.windows import MAX_TAPS, Axis, Window, each_view, spread, views, widened
from jaxattr.types import Array

Order = tuple[int, ...]
Spelling = Callable[[Array, Array], Array]
Views = tuple[Spelling, Spelling, Spelling]
"""A convolution, of `(x, w)`, and its derivatives to the image, of `(w, c)`, and to the kernel."""


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
    own = _own(params, x, w)
    if own is None:
        return None
    conv, *orders = _channels_last(params, x, w)
    return bilinear(*map(on_cpu, _in_order(_spelling(conv), *orders), own))


def _own(params: Mapping[str, Any], x: Any, w: Any) -> Views | None:
    """Return XLA's own convolution and its derivatives, unless it has no other spelling."""
    settings = {k: v for k, v in params.items() if k != "out_sharding"}
    value = partial(lax.conv_general_dilated, **settings)
    if params["batch_group_count"] != 1 or params.get("out_sharding") is not None:
        return None
    y = jax.eval_shape(value, x, w)
    if not (x.dtype == w.dtype == y.dtype and y.size):
        return None
    return (
        value,
        lambda w, c: jax.linear_transpose(lambda x: value(x, w), _like(x.shape, c))(c)[0],
        lambda x, c: jax.linear_transpose(partial(value, x), _like(w.shape, c))(c)[0],
    )


def _in_order(views: Views, order_x: Order, order_w: Order, order_y: Order) -> Views:
    """Return what is spelled with channels last in the order of a convolution's own operands."""
    value, to_input, to_kernel = views

    def ordered(f: Spelling, a: Order, b: Order, back: Order) -> Spelling:
        return lambda left, right: f(left.transpose(a), right.transpose(b)).transpose(back)

    x, w, y = (tuple(map(int, np.argsort(order))) for order in (order_x, order_w, order_y))
    return (
        ordered(value, order_x, order_w, y),
        ordered(to_input, order_w, order_y, x),
        ordered(to_kernel, order_x, order_y, w),
    )


def by_taps(params: Mapping[str, Any], x: Any, w: Any) -> Spelling | None:
    """Return `conv_general_dilated` of arrays like `x` and `w` as a matrix product for each tap.

    For a kernel of its own for every image, under `vmap`: then it is a batch of matrix products,
    and so are its derivatives. JAX's own is a convolution in as many groups, whose derivative to
    the kernel is wrong where the batch is sharded (jax 0.10.2), and which gathers the batch.

    Returns:
        The function of `x` and `w`; None for batch groups, dilated images and large kernels.
    """
    return _by_taps(tuple(params.items()), jax.typeof(x), jax.typeof(w))


@lru_cache(maxsize=1024)
def _by_taps(items: tuple, x: Any, w: Any) -> Spelling | None:
    params = dict(items)
    own = _own(params, x, w)
    conv, *orders = _channels_last(params, x, w)
    few = math.prod(conv.w[:-2]) <= MAX_TAPS and math.prod(conv.x_dilation) == 1
    if not few or own is None:
        return None
    value, to_input, to_kernel = _spelling(conv)
    if value.func is _dense:
        value, to_input = partial(_taps, conv), partial(_taps_to_input, conv)
        to_kernel = partial(_taps_to_kernel, conv)
    taken = _in_order((value, to_input, to_kernel), *orders)
    return bilinear(*map(instead, taken, own))


def _taps(conv: Conv, x: Array, w: Array) -> Array:
    """Convolve by a matrix product for each tap of the kernel."""
    *_, inputs, outputs = conv.w
    seen = views(x, (*_window(conv)[:-1], Axis(conv.x[-1])))
    kernel = _grouped(w, (inputs, outputs), (conv.groups, outputs // conv.groups))

    def product(seen: Array, w: Array) -> Array:
        parts = seen.reshape(*seen.shape[:-1], conv.groups, inputs)
        y = jnp.einsum("...gi,igo->...go", parts, w, precision=conv.precision)
        return y.reshape(*y.shape[:-2], outputs)

    return reduce(lax.add, map(product, seen, kernel))


def _taps_to_input(conv: Conv, w: Array, c: Array) -> Array:
    return jax.linear_transpose(lambda x: _taps(conv, x, w), _like(conv.x, c))(c)[0]


def _taps_to_kernel(conv: Conv, x: Array, c: Array) -> Array:
    inputs = conv.w[-2]
    c = _grouped(c, conv.w[-1:], (conv.groups, conv.w[-1] // conv.groups))

    def product(seen: Array) -> Array:
        parts = _grouped(seen, conv.x[-1:], (conv.groups, inputs))
        kernel = jnp.einsum("pgi,pgo->igo", parts, c, precision=conv.precision)
        return kernel.reshape(conv.w[-2:])

    return each_view(product, x, (*_window(conv)[:-1], Axis(conv.x[-1]))).reshape(conv.w)


def _grouped(a: Array, last: Sequence[int], groups: Sequence[int]) -> Array:
    """Make one of the axes before the last ones, and groups of the last.

    Not by one reshape: explicit meshes know those that merge axes or part them, not both at once.
    """
    return a.reshape(-1, *last).reshape(-1, *last[:-1], *groups)


def _like(shape: tuple[int, ...], c: Array) -> Any:
    # Of the same devices, too, where the batch is split by `jax.shard_map`.
    return jax.eval_shape(lambda c: jnp.broadcast_to(c.ravel()[0], shape), c)


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


def _spelling(conv: Conv) -> tuple[partial, partial, Spelling]:
    """Return the value, of `(x, w)`, and its derivatives.

    That to the input is a function of `(w, cotangent)`, that to the kernel of `(x, cotangent)`.
    """
    window, taps = _window(conv), math.prod(conv.w[:-2])
    value, to_input = _dense, _dense_to_input
    if math.prod(conv.x_dilation) == 1:
        if conv.groups == 1 and all((a.size - 1) * a.dilation < a.stride for a in window):
            value, to_input = _patches if taps == 1 else _dense, _patches_to_input
        elif conv.groups == conv.x[-1] > 1 and taps <= MAX_TAPS:
            value, to_input = _depthwise, _depthwise_to_input
        elif math.prod(conv.x[1:-1]) < taps <= MAX_TAPS:
            value, to_input = widened(_taps), widened(_taps_to_input)
    spelled = partial(value, conv)

    def to_kernel(x: Array, c: Array) -> Array:
        if value is _depthwise:
            return _depthwise_to_kernel(conv, x, c)
        return jax.linear_transpose(partial(spelled, x), _like(conv.w, c))(c)[0]

    return spelled, partial(to_input, conv), to_kernel


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
    seen = views(_repeated(conv, x), _window(conv))
    return reduce(lax.add, map(_scaled, seen, _rows(conv, w)))


@widened
def _depthwise_to_kernel(conv: Conv, x: Array, c: Array) -> Array:
    total = lambda seen: (seen * c).sum(range(c.ndim - 1))
    return each_view(total, _repeated(conv, x), _window(conv)).reshape(conv.w)


def _repeated(conv: Conv, x: Array) -> Array:
    """Repeat each channel for all that is made of it."""
    return x if conv.w[-1] == conv.groups else jnp.repeat(x, conv.w[-1] // conv.groups, axis=-1)


@widened
def _depthwise_to_input(conv: Conv, w: Array, c: Array) -> Array:
    rows = _rows(conv, w)
    a = spread(lambda i, c: _scaled(c, rows[i]), _window(conv), c)
    return a if a.shape == conv.x else a.reshape(*conv.x, -1).sum(-1)


# JAX's own operators broadcast and promote, which takes longer to trace than all that they do here.
def _rows(conv: Conv, w: Array) -> list[Array]:
    """List the weights of each tap."""
    w = lax.reshape(w, (math.prod(conv.w[:-1]), conv.w[-1]))
    return [lax.index_in_dim(w, i, keepdims=False) for i in range(w.shape[0])]


def _scaled(a: Array, row: Array) -> Array:
    return lax.mul(a, lax.broadcast_in_dim(row, a.shape, (a.ndim - 1,)))


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
