"""The Swin Transformer, as torchvision lays it out.

Reference: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    call,
    conv,
    flatten,
    gelu,
    global_average_pool,
    identity,
    layer_norm,
    linear,
)
from jaxattr.types import Array, Key

_WINDOW = 7
_EPSILON = 1e-5
_APART = -100.0  # what is added to the scores of positions that a shift has made neighbors


def relative_positions(window: int) -> np.ndarray:
    """Return the row of the table of biases for every two positions of a window.

    >>> relative_positions(2)[0].tolist()
    [4, 3, 1, 0]
    """
    rows, columns = np.divmod(np.arange(window**2), window)
    down, right = (a[:, None] - a[None, :] + window - 1 for a in (rows, columns))
    return down * (2 * window - 1) + right


def regions(height: int, width: int, window: int, shift: Sequence[int]) -> np.ndarray:
    """Number the parts of shifted maps `(h, w)` that were neighbors before the shift."""

    def numbers(length: int, shift: int) -> np.ndarray:
        position = np.arange(length)
        return (position >= length - window).astype(int) + (position >= length - shift)

    down, right = numbers(height, shift[0]), numbers(width, shift[1])
    return 3 * down[:, None] + right[None, :]


def to_windows(x: Any, window: int) -> Any:
    """Cut `(B, h, w, C)` into `(B, windows, window ** 2, C)`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // window, window, w // window, window, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, window**2, c)


def from_windows(x: Array, window: int, height: int, width: int) -> Array:
    """Put `(B, windows, window ** 2, C)` together to `(B, height, width, C)`."""
    b, _, _, c = x.shape
    x = x.reshape(b, height // window, width // window, window, window, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, height, width, c)


class WindowAttention(nnx.Module):
    """Attention inside windows, which are shifted by half of their side or not."""

    def __init__(self, width: int, heads: int, *, shifted: bool, rngs: nnx.Rngs):
        self.heads, self.shifted = heads, shifted
        self.qkv = linear(width, 3 * width, rngs=rngs)
        self.proj = linear(width, width, rngs=rngs)
        table = ((2 * _WINDOW - 1) ** 2, heads)
        self.relative_position_bias_table = nnx.Param(_small(rngs.params(), table))

    def __call__(self, x: Array) -> Array:
        """Apply it to maps `(B, h, w, C)`, padded to whole windows."""
        height, width = x.shape[1:3]
        below, right = -height % _WINDOW, -width % _WINDOW
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
        tall, wide = x.shape[1:3]
        shift = [_WINDOW // 2 if self.shifted and n > _WINDOW else 0 for n in (tall, wide)]
        if not any(shift):
            return self._mixed(x, None)[:, :height, :width]
        shifted = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
        mixed = self._mixed(shifted, regions(tall, wide, _WINDOW, shift))
        return jnp.roll(mixed, shift, (1, 2))[:, :height, :width]

    def _mixed(self, x: Array, regions: np.ndarray | None) -> Array:
        """Attend inside every window of maps `(B, h, w, C)`, and there inside every region."""
        windows = to_windows(x, _WINDOW)
        projected = call(self.qkv, "qkv", windows).reshape(*windows.shape[:3], 3, self.heads, -1)
        query, key, value = (projected[:, :, :, i] for i in range(3))
        scores = jnp.einsum("bwqhd,bwkhd->bwhqk", query * query.shape[-1] ** -0.5, key)
        biases = self.relative_position_bias_table[...][relative_positions(_WINDOW)]
        scores = scores + biases.transpose(2, 0, 1)
        if regions is not None:
            number = to_windows(regions[None, ..., None], _WINDOW)[0, :, :, 0]
            apart = number[:, :, None] != number[:, None, :]
            scores = scores + np.where(apart[:, None], _APART, 0).astype(scores.dtype)
        mixed = jnp.einsum("bwhqk,bwkhd->bwqhd", jax.nn.softmax(scores), value)
        mixed = call(self.proj, "proj", mixed.reshape(windows.shape))
        return from_windows(mixed, _WINDOW, *x.shape[1:3])


class Block(nnx.Module):
    """Attention and two dense layers, each normalized before and its input added back.

    The places 2 and 4 of `mlp` are torchvision's dropouts.
    """

    def __init__(self, width: int, heads: int, *, shifted: bool, rngs: nnx.Rngs):
        self.norm1 = layer_norm(width, epsilon=_EPSILON, rngs=rngs)
        self.attn = WindowAttention(width, heads, shifted=shifted, rngs=rngs)
        self.norm2 = layer_norm(width, epsilon=_EPSILON, rngs=rngs)
        widen, narrow = linear(width, 4 * width, rngs=rngs), linear(4 * width, width, rngs=rngs)
        self.mlp = Sequential([widen, gelu, identity, narrow, identity])

    def __call__(self, x: Array) -> Array:
        """Apply the block to maps `(B, h, w, C)`."""
        x = x + call(self.attn, "attn", call(self.norm1, "norm1", x))
        return x + call(self.mlp, "mlp", call(self.norm2, "norm2", x))


class PatchMerging(nnx.Module):
    """Join every two by two positions to one of twice the channels."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.reduction = linear(4 * width, 2 * width, bias=False, rngs=rngs)
        self.norm = layer_norm(4 * width, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Apply it to maps `(B, h, w, C)`."""
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
        return call(self.reduction, "reduction", call(self.norm, "norm", x))


def _small(key: Key, shape: tuple[int, ...]) -> Array:
    return 0.02 * jax.random.normal(key, shape)


def _without_indices(key: str) -> str:
    """Leave out torchvision's buffer of what `relative_positions` returns."""
    return "" if key.endswith("relative_position_index") else key


class SwinTransformer(Classifier):
    """A Swin Transformer of given depths and heads of its four stages."""

    parts = Parts(features=("features", "norm"), pooling=("avgpool",), head=("flatten", "head"))
    torch = TorchLayout(last="head", rename=_without_indices)

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        *,
        classes: int,
        rngs: nnx.Rngs | None,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        embed = conv(3, width, 4, stride=4, padding=0, bias=True, rngs=rngs)
        norm = layer_norm(width, epsilon=_EPSILON, rngs=rngs)
        self.features = Sequential([Sequential([embed, identity, norm])])
        for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            if stage > 0:
                self.features.append(PatchMerging(width, rngs=rngs))
                width *= 2
            blocks = [Block(width, count, shifted=i % 2 == 1, rngs=rngs) for i in range(depth)]
            self.features.append(Sequential(blocks))
        self.norm = layer_norm(width, epsilon=_EPSILON, rngs=rngs)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.head = linear(width, classes, rngs=rngs)


def swin_t(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> SwinTransformer:
    """Build Swin-T."""
    return SwinTransformer(96, (2, 2, 6, 2), (3, 6, 12, 24), classes=classes, rngs=rngs)
