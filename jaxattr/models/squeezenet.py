"""SqueezeNet, as torchvision lays it out.

Reference: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
<0.5MB model size", arXiv:1602.07360.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    conv,
    flatten,
    global_average_pool,
    identity,
    max_pool,
    through,
)
from jaxattr.types import Array

_halve = partial(max_pool, size=3, stride=2, ceil=True)

# What a Fire module narrows to and widens to, by pieces between max-pools.
FIRES_1_0 = (
    ((16, 128), (16, 128), (32, 256)),
    ((32, 256), (48, 384), (48, 384), (64, 512)),
    ((64, 512),),
)
FIRES_1_1 = (
    ((16, 128), (16, 128)),
    ((32, 256), (32, 256)),
    ((48, 384), (48, 384), (64, 512), (64, 512)),
)


class Fire(nnx.Module):
    """A narrow 1x1 convolution, then 1x1 and 3x3 ones side by side."""

    def __init__(self, inputs: int, squeezed: int, outputs: int, *, rngs: nnx.Rngs):
        self.squeeze = conv(inputs, squeezed, 1, bias=True, rngs=rngs)
        self.squeeze_activation = nnx.relu
        self.expand1x1 = conv(squeezed, outputs // 2, 1, bias=True, rngs=rngs)
        self.expand1x1_activation = nnx.relu
        self.expand3x3 = conv(squeezed, outputs // 2, 3, bias=True, rngs=rngs)
        self.expand3x3_activation = nnx.relu

    def __call__(self, x: Array) -> Array:
        """Apply the module."""
        x = through(self, x, "squeeze", "squeeze_activation")
        sides = ("expand1x1", "expand3x3")
        return jnp.concatenate(
            [through(self, x, side, f"{side}_activation") for side in sides], axis=-1
        )


class SqueezeNet(Classifier):
    """SqueezeNet, whose last convolution's maps are averaged; `classifier[0]` is a dropout's place.

    Its logits are never negative: an activation follows the last convolution.
    """

    parts = Parts(features=("features",), pooling=(), head=("classifier", "flatten"))
    torch = TorchLayout(last="classifier.1")

    def __init__(
        self,
        stem: nnx.Conv,
        fires: Sequence[Sequence[tuple[int, int]]],
        *,
        classes: int,
        rngs: nnx.Rngs,
    ):
        self.features = Sequential([stem, nnx.relu])
        inputs = stem.out_features
        for piece in fires:
            self.features.append(_halve)
            for squeezed, outputs in piece:
                self.features.append(Fire(inputs, squeezed, outputs, rngs=rngs))
                inputs = outputs
        last = conv(inputs, classes, 1, bias=True, rngs=rngs)
        self.classifier = Sequential([identity, last, nnx.relu, global_average_pool])
        self.flatten = flatten


def squeezenet1_0(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> SqueezeNet:
    """Build SqueezeNet 1.0."""
    rngs = nnx.Rngs(0) if rngs is None else rngs
    stem = conv(3, 96, 7, stride=2, padding=0, bias=True, rngs=rngs)
    return SqueezeNet(stem, FIRES_1_0, classes=classes, rngs=rngs)


def squeezenet1_1(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> SqueezeNet:
    """Build SqueezeNet 1.1, which pools earlier and is as accurate."""
    rngs = nnx.Rngs(0) if rngs is None else rngs
    stem = conv(3, 64, 3, stride=2, padding=0, bias=True, rngs=rngs)
    return SqueezeNet(stem, FIRES_1_1, classes=classes, rngs=rngs)
