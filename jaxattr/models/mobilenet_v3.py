"""MobileNetV3, large and small, as torchvision lays it out.

Reference: Howard et al., "Searching for MobileNetV3", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

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
from jaxattr.models.bottlenecks import Bottleneck, InvertedResidual, round_channels

_EPSILON = 1e-3
_STEM = 16


class Row(NamedTuple):
    """A row of the paper's tables 1 and 2."""

    kernel: int
    hidden: int
    outputs: int
    gated: bool
    swish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class MobileNetV3(Classifier):
    """MobileNetV3 of a table; `classifier[2]` holds the place of its dropout."""

    parts = Parts(features=("features",), pooling=("avgpool",), head=("flatten", "classifier"))
    torch = TorchLayout(last="classifier.3")

    def __init__(self, rows: Sequence[Row], last: int, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        norm = partial(conv_norm, epsilon=_EPSILON, activation=jax.nn.hard_swish, rngs=rngs)
        self.features = Sequential([norm(3, _STEM, 3, stride=2)])
        inputs = _STEM
        for row in rows:
            self.features.append(InvertedResidual(_bottleneck(inputs, row), rngs=rngs))
            inputs = row.outputs
        self.features.append(norm(inputs, 6 * inputs, 1))
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.classifier = Sequential(
            [
                linear(6 * inputs, last, rngs=rngs),
                jax.nn.hard_swish,
                identity,
                linear(last, classes, rngs=rngs),
            ]
        )


def _bottleneck(inputs: int, row: Row) -> Bottleneck:
    return Bottleneck(
        inputs=inputs,
        hidden=row.hidden,
        outputs=row.outputs,
        kernel=row.kernel,
        stride=row.stride,
        squeezed=round_channels(row.hidden // 4) if row.gated else 0,
        activation=jax.nn.hard_swish if row.swish else nnx.relu,
        squeeze=nnx.relu,
        gate=jax.nn.hard_sigmoid,
        epsilon=_EPSILON,
    )


def mobilenet_v3_large(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> MobileNetV3:
    """Build MobileNetV3-Large."""
    return MobileNetV3(LARGE, 1280, classes=classes, rngs=rngs)


def mobilenet_v3_small(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> MobileNetV3:
    """Build MobileNetV3-Small."""
    return MobileNetV3(SMALL, 1024, classes=classes, rngs=rngs)
