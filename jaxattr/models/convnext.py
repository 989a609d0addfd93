"""ConvNeXt, as torchvision lays it out.

Reference: Liu et al., "A ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from jaxattr.models import foreign
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
from jaxattr.types import Array

_SCALE = 1e-6  # what a block's branch is multiplied by before training


class Block(nnx.Module):
    """A 7x7 convolution of each channel, two dense layers at each position, the input added back.

    The places 1 and 6 of `block` are torchvision's permutations, which channels last need not.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.block = Sequential(
            [
                conv(channels, channels, 7, groups=channels, bias=True, rngs=rngs),
                identity,
                layer_norm(channels, rngs=rngs),
                linear(channels, 4 * channels, rngs=rngs),
                gelu,
                linear(4 * channels, channels, rngs=rngs),
                identity,
            ]
        )
        self.layer_scale = nnx.Param(jnp.full((channels, 1, 1), _SCALE))

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        return x + call(self.block, "block", x) * self.layer_scale[...].reshape(-1)


class ConvNeXt(Classifier):
    """ConvNeXt of given widths and numbers of blocks in its four stages."""

    parts = Parts(features=("features",), pooling=("avgpool",), head=("classifier",))
    torch = TorchLayout(last="classifier.2", rename=foreign.convnext)

    def __init__(
        self,
        widths: Sequence[int],
        repeats: Sequence[int],
        *,
        classes: int,
        rngs: nnx.Rngs | None,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.features = Sequential([_patches(3, widths[0], 4, rngs=rngs)])
        for width, after, blocks in zip(widths, [*widths[1:], None], repeats, strict=True):
            self.features.append(Sequential([Block(width, rngs=rngs) for _ in range(blocks)]))
            if after is not None:
                self.features.append(_patches(width, after, 2, rngs=rngs))
        self.avgpool = global_average_pool
        self.classifier = Sequential(
            [layer_norm(widths[-1], rngs=rngs), flatten, linear(widths[-1], classes, rngs=rngs)]
        )


def _patches(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs) -> Sequential:
    """Turn squares into positions; the image's are normalized behind, feature maps' before."""
    embed = conv(inputs, outputs, size, stride=size, padding=0, bias=True, rngs=rngs)
    first = inputs == 3
    norm = layer_norm(outputs if first else inputs, rngs=rngs)
    return Sequential([embed, norm] if first else [norm, embed])


def convnext_tiny(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ConvNeXt:
    """Build ConvNeXt-Tiny."""
    return ConvNeXt((96, 192, 384, 768), (3, 3, 9, 3), classes=classes, rngs=rngs)


def convnext_small(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ConvNeXt:
    """Build ConvNeXt-Small."""
    return ConvNeXt((96, 192, 384, 768), (3, 3, 27, 3), classes=classes, rngs=rngs)


def convnext_base(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ConvNeXt:
    """Build ConvNeXt-Base."""
    return ConvNeXt((128, 256, 512, 1024), (3, 3, 27, 3), classes=classes, rngs=rngs)


def convnext_large(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ConvNeXt:
    """Build ConvNeXt-Large."""
    return ConvNeXt((192, 384, 768, 1536), (3, 3, 27, 3), classes=classes, rngs=rngs)
