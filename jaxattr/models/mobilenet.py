"""MobileNetV2, as torchvision lays it out.

Reference: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    batch_norm,
    call,
    conv,
    conv_norm,
    flatten,
    global_average_pool,
    identity,
    linear,
)
from jaxattr.types import Array

_STEM, _TOP = 32, 1280


class Row(NamedTuple):
    """A row of the paper's table 2; only the first block has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


ROWS = (
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)


class InvertedResidual(nnx.Module):
    """Widen, convolve each channel, narrow without activation, and add the input back."""

    def __init__(self, inputs: int, row: Row, stride: int, *, rngs: nnx.Rngs):
        hidden = inputs * row.expansion
        norm = partial(conv_norm, activation=nnx.relu6, rngs=rngs)
        self.adds = stride == 1 and inputs == row.channels
        self.conv = Sequential([norm(inputs, hidden, 1)] if row.expansion != 1 else [])
        self.conv.append(norm(hidden, hidden, 3, stride=stride, groups=hidden))
        self.conv.append(conv(hidden, row.channels, 1, rngs=rngs))
        self.conv.append(batch_norm(row.channels, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        y = call(self.conv, "conv", x)
        return x + y if self.adds else y


class MobileNetV2(Classifier):
    """MobileNetV2 of width 1; `classifier[0]` holds the place of its dropout."""

    parts = Parts(features=("features",), pooling=("avgpool",), head=("flatten", "classifier"))
    torch = TorchLayout(last="classifier.1")

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        norm = partial(conv_norm, activation=nnx.relu6, rngs=rngs)
        self.features = Sequential([norm(3, _STEM, 3, stride=2)])
        inputs = _STEM
        for row in ROWS:
            for stride in (row.stride, *(1,) * (row.repeats - 1)):
                self.features.append(InvertedResidual(inputs, row, stride, rngs=rngs))
                inputs = row.channels
        self.features.append(norm(inputs, _TOP, 1))
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.classifier = Sequential([identity, linear(_TOP, classes, rngs=rngs)])


def mobilenet_v2(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> MobileNetV2:
    """Build MobileNetV2."""
    return MobileNetV2(classes=classes, rngs=rngs)
