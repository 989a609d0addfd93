"""EfficientNet-B0 to B7, as torchvision lays it out.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019. Padding is torch's, not TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil

import jax
from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    conv_norm,
    flatten,
    global_average_pool,
    identity,
    linear,
)
from jaxattr.models.bottlenecks import Bottleneck, round_channels, stack
from jaxattr.models.efficientnet_lite import STAGES, Stage

_STEM = 32
_TOP = 4  # the last convolution's channels for each of the last stage's


class EfficientNet(Classifier):
    """EfficientNet of a width and depth relative to B0; `classifier[0]` is a dropout's place."""

    parts = Parts(features=("features",), pooling=("avgpool",), head=("flatten", "classifier"))
    torch = TorchLayout(last="classifier.1")

    def __init__(
        self,
        width: float,
        depth: float,
        *,
        classes: int,
        rngs: nnx.Rngs | None,
        epsilon: float = 1e-5,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        norm = partial(conv_norm, epsilon=epsilon, activation=jax.nn.silu, rngs=rngs)
        inputs = round_channels(_STEM * width)
        self.features = Sequential([norm(3, inputs, 3, stride=2)])
        for stage in scaled_stages(width, depth):
            self.features.append(stack(_bottlenecks(inputs, stage, epsilon), rngs=rngs))
            inputs = stage.channels
        self.features.append(norm(inputs, _TOP * inputs, 1))
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.classifier = Sequential([identity, linear(_TOP * inputs, classes, rngs=rngs)])


def scaled_stages(width: float, depth: float) -> list[Stage]:
    """Scale the table of B0.

    >>> [(stage.repeats, stage.channels) for stage in scaled_stages(1.2, 1.4)][:3]
    [(2, 24), (3, 32), (3, 48)]
    """
    return [
        stage._replace(
            channels=round_channels(stage.channels * width), repeats=ceil(stage.repeats * depth)
        )
        for stage in STAGES
    ]


def _bottlenecks(inputs: int, stage: Stage, epsilon: float) -> Sequence[Bottleneck]:
    def bottleneck(inputs: int, stride: int) -> Bottleneck:
        return Bottleneck(
            inputs=inputs,
            hidden=inputs * stage.expansion,
            outputs=stage.channels,
            kernel=stage.kernel,
            stride=stride,
            squeezed=max(1, inputs // 4),
            activation=jax.nn.silu,
            squeeze=jax.nn.silu,
            gate=jax.nn.sigmoid,
            epsilon=epsilon,
        )

    first = bottleneck(inputs, stage.stride)
    return [first, *[bottleneck(stage.channels, 1)] * (stage.repeats - 1)]


def efficientnet_b0(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B0, for images of 224 x 224."""
    return EfficientNet(1.0, 1.0, classes=classes, rngs=rngs)


def efficientnet_b1(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B1, for images of 240 x 240."""
    return EfficientNet(1.0, 1.1, classes=classes, rngs=rngs)


def efficientnet_b2(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B2, for images of 288 x 288."""
    return EfficientNet(1.1, 1.2, classes=classes, rngs=rngs)


def efficientnet_b3(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B3, for images of 300 x 300."""
    return EfficientNet(1.2, 1.4, classes=classes, rngs=rngs)


def efficientnet_b4(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B4, for images of 380 x 380."""
    return EfficientNet(1.4, 1.8, classes=classes, rngs=rngs)


def efficientnet_b5(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B5, for images of 456 x 456."""
    return EfficientNet(1.6, 2.2, classes=classes, rngs=rngs, epsilon=1e-3)


def efficientnet_b6(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B6, for images of 528 x 528."""
    return EfficientNet(1.8, 2.6, classes=classes, rngs=rngs, epsilon=1e-3)


def efficientnet_b7(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> EfficientNet:
    """Build EfficientNet-B7, for images of 600 x 600."""
    return EfficientNet(2.0, 3.1, classes=classes, rngs=rngs, epsilon=1e-3)
