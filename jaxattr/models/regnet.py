"""RegNetY, as torchvision lays it out.

Reference: Radosavovic et al., "Designing Network Design Spaces", CVPR 2020. The widths and depths
of the stages are those that the paper's rule gives.
"""

from __future__ import annotations

from typing import NamedTuple

from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Named,
    Parts,
    TorchLayout,
    call,
    conv_norm,
    flatten,
    global_average_pool,
    linear,
)
from jaxattr.models.bottlenecks import SqueezeExcitation
from jaxattr.types import Array

_STEM = 32
_SQUEEZE = 4  # channels that enter a block, for each of its gate's


class Design(NamedTuple):
    """The four stages of a RegNet, and the channels of a group of its convolutions."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    group: int


class Block(nnx.Module):
    """A convolution in groups, gated, between two 1x1 ones, and the input added back."""

    def __init__(self, inputs: int, width: int, stride: int, group: int, *, rngs: nnx.Rngs):
        changes = stride != 1 or inputs != width
        self.proj = (
            conv_norm(inputs, width, 1, stride=stride, activation=None, rngs=rngs)
            if changes
            else None
        )
        self.f = Named(
            a=conv_norm(inputs, width, 1, rngs=rngs),
            b=conv_norm(width, width, 3, stride=stride, groups=width // group, rngs=rngs),
            se=SqueezeExcitation(width, round(inputs / _SQUEEZE), rngs=rngs),
            c=conv_norm(width, width, 1, activation=None, rngs=rngs),
        )
        self.activation = nnx.relu

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        shortcut = x if self.proj is None else call(self.proj, "proj", x)
        return call(self.activation, "activation", shortcut + call(self.f, "f", x))


class RegNet(Classifier):
    """RegNetY of a design."""

    parts = Parts(features=("stem", "trunk_output"), pooling=("avgpool",), head=("flatten", "fc"))
    torch = TorchLayout(last="fc")

    def __init__(self, design: Design, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.stem = conv_norm(3, _STEM, 3, stride=2, rngs=rngs)
        inputs, stages = _STEM, {}
        for number, (depth, width) in enumerate(zip(design.depths, design.widths, strict=True), 1):
            blocks = {}
            for i in range(depth):
                block = Block(inputs, width, 1 if i else 2, design.group, rngs=rngs)
                blocks[f"block{number}-{i}"] = block
                inputs = width
            stages[f"block{number}"] = Named(**blocks)
        self.trunk_output = Named(**stages)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.fc = linear(inputs, classes, rngs=rngs)


def regnet_y_400mf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 0.4 billion multiplications."""
    return RegNet(Design((1, 3, 6, 6), (48, 104, 208, 440), 8), classes=classes, rngs=rngs)


def regnet_y_800mf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 0.8 billion multiplications."""
    return RegNet(Design((1, 3, 8, 2), (64, 144, 320, 784), 16), classes=classes, rngs=rngs)


def regnet_y_1_6gf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 1.6 billion multiplications."""
    return RegNet(Design((2, 6, 17, 2), (48, 120, 336, 888), 24), classes=classes, rngs=rngs)


def regnet_y_3_2gf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 3.2 billion multiplications."""
    return RegNet(Design((2, 5, 13, 1), (72, 216, 576, 1512), 24), classes=classes, rngs=rngs)


def regnet_y_8gf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 8 billion multiplications."""
    return RegNet(Design((2, 4, 10, 1), (224, 448, 896, 2016), 56), classes=classes, rngs=rngs)


def regnet_y_16gf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 16 billion multiplications."""
    return RegNet(Design((2, 4, 11, 1), (224, 448, 1232, 3024), 112), classes=classes, rngs=rngs)


def regnet_y_32gf(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> RegNet:
    """Build RegNetY of 32 billion multiplications."""
    return RegNet(Design((2, 5, 12, 1), (232, 696, 1392, 3712), 232), classes=classes, rngs=rngs)
