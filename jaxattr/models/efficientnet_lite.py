"""EfficientNet-Lite: inverted bottlenecks with ReLU6 and no squeeze-excite.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019, and the lite variants of TensorFlow's `efficientnet/lite`. Padding is TensorFlow's.
"""

from __future__ import annotations

import re
from math import ceil
from typing import NamedTuple

from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    batch_norm,
    conv,
    flatten,
    global_average_pool,
    linear,
    through,
)
from jaxattr.models.bottlenecks import round_channels
from jaxattr.types import Array

_STEM, _TOP = 32, 1280  # the stem and the last convolution are never scaled


class Stage(NamedTuple):
    """Blocks of one width; only the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Block(nnx.Module):
    """An inverted bottleneck: widen, convolve each channel, narrow, and add the input back."""

    def __init__(self, inputs: int, stage: Stage, stride: int, *, rngs: nnx.Rngs):
        hidden = inputs * stage.expansion
        self.widens = stage.expansion != 1
        self.adds = stride == 1 and inputs == stage.channels
        if self.widens:
            self.expand_conv = _conv(inputs, hidden, 1, rngs=rngs)
            self.bn0 = _bn(hidden, rngs=rngs)
        self.depthwise_conv = _conv(
            hidden, hidden, stage.kernel, stride=stride, groups=hidden, rngs=rngs
        )
        self.bn1 = _bn(hidden, rngs=rngs)
        self.project_conv = _conv(hidden, stage.channels, 1, rngs=rngs)
        self.bn2 = _bn(stage.channels, rngs=rngs)
        self.relu6 = nnx.relu6

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        widen = ("expand_conv", "bn0", "relu6") if self.widens else ()
        y = through(self, x, *widen, "depthwise_conv", "bn1", "relu6", "project_conv", "bn2")
        return x + y if self.adds else y


def _without_underscores(key: str) -> str:
    """Turn `_blocks.0._bn1.weight`, as the checkpoints write it, into `blocks.0.bn1.weight`."""
    return re.sub(r"(^|\.)_", r"\1", key)


class EfficientNetLite(Classifier):
    """EfficientNet-Lite of a given width and depth, relative to Lite0."""

    parts = Parts(
        features=("conv_stem", "bn0", "relu6", "blocks", "conv_head", "bn1", "relu6"),
        pooling=("avgpool",),
        head=("flatten", "fc"),
    )
    torch = TorchLayout(last="fc", rename=_without_underscores)

    def __init__(self, width: float, depth: float, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.conv_stem = _conv(3, _STEM, 3, stride=2, rngs=rngs)
        self.bn0 = _bn(_STEM, rngs=rngs)
        self.relu6 = nnx.relu6
        self.blocks = Sequential()
        channels = _STEM
        for stage in scaled_stages(width, depth):
            for stride in (stage.stride, *(1,) * (stage.repeats - 1)):
                self.blocks.append(Block(channels, stage, stride, rngs=rngs))
                channels = stage.channels
        self.conv_head = _conv(channels, _TOP, 1, rngs=rngs)
        self.bn1 = _bn(_TOP, rngs=rngs)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.fc = linear(_TOP, classes, rngs=rngs)


def scaled_stages(width: float, depth: float) -> list[Stage]:
    """Scale the table of Lite0; the number of blocks of the first and last stage is kept.

    >>> [stage.channels for stage in scaled_stages(1.2, 1.4)]
    [24, 32, 48, 96, 136, 232, 384]
    >>> [stage.repeats for stage in scaled_stages(1.2, 1.4)]
    [1, 3, 3, 5, 5, 6, 1]
    """
    ends = (STAGES[0], STAGES[-1])
    return [
        stage._replace(
            channels=round_channels(stage.channels * width),
            repeats=stage.repeats if stage in ends else ceil(stage.repeats * depth),
        )
        for stage in STAGES
    ]


def _conv(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs, stride=1, groups=1) -> nnx.Conv:
    return conv(inputs, outputs, size, stride=stride, groups=groups, padding="SAME", rngs=rngs)


def _bn(channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return batch_norm(channels, epsilon=1e-3, rngs=rngs)


def efficientnet_lite0(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNetLite:
    """Build EfficientNet-Lite0, for images of 224 x 224."""
    return EfficientNetLite(1.0, 1.0, classes=classes, rngs=rngs)


def efficientnet_lite1(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNetLite:
    """Build EfficientNet-Lite1, for images of 240 x 240."""
    return EfficientNetLite(1.0, 1.1, classes=classes, rngs=rngs)


def efficientnet_lite2(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNetLite:
    """Build EfficientNet-Lite2, for images of 260 x 260."""
    return EfficientNetLite(1.1, 1.2, classes=classes, rngs=rngs)


def efficientnet_lite3(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNetLite:
    """Build EfficientNet-Lite3, for images of 280 x 280."""
    return EfficientNetLite(1.2, 1.4, classes=classes, rngs=rngs)


def efficientnet_lite4(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNetLite:
    """Build EfficientNet-Lite4, for images of 300 x 300."""
    return EfficientNetLite(1.4, 1.8, classes=classes, rngs=rngs)
