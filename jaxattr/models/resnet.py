"""ResNet for ImageNet, ResNeXt and Wide ResNet, as torchvision lays them out.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Differs from the
paper as torchvision does: a bottleneck has its stride at the 3x3 convolution ("v1.5"). Xie et al.,
"Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017. Zagoruyko and Komodakis,
"Wide Residual Networks", BMVC 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from flax import nnx

from jaxattr.models import foreign
from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    batch_norm,
    call,
    conv,
    flatten,
    global_average_pool,
    linear,
    max_pool,
    through,
)
from jaxattr.types import Array

WIDTHS = (64, 128, 256, 512)

_halve = partial(max_pool, size=3, stride=2, padding=1)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and the input added back."""

    expansion = 1
    branch = ("conv1", "bn1", "relu", "conv2", "bn2")

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = conv(inputs, width, 3, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.relu = nnx.relu
        self.downsample = _downsample(inputs, width, stride, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        return _residual(self, x)


class Bottleneck(nnx.Module):
    """A narrow 3x3 convolution between two 1x1 ones, and the input added back.

    With `first` the stride is at the first 1x1 convolution, as in the paper. `groups` are those of
    the 3x3 convolution, each `group_width / 64` of the width wide.
    """

    expansion = 4
    branch = ("conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3")

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        *,
        rngs: nnx.Rngs,
        first: bool = False,
        groups: int = 1,
        group_width: int = 64,
    ):
        outputs, inner = width * self.expansion, width * group_width // 64 * groups
        strides = (stride, 1) if first else (1, stride)
        self.conv1 = conv(inputs, inner, 1, stride=strides[0], rngs=rngs)
        self.bn1 = batch_norm(inner, rngs=rngs)
        self.conv2 = conv(inner, inner, 3, stride=strides[1], groups=groups, rngs=rngs)
        self.bn2 = batch_norm(inner, rngs=rngs)
        self.conv3 = conv(inner, outputs, 1, rngs=rngs)
        self.bn3 = batch_norm(outputs, rngs=rngs)
        self.relu = nnx.relu
        self.downsample = _downsample(inputs, outputs, stride, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        return _residual(self, x)


def _residual(block: BasicBlock | Bottleneck, x: Array) -> Array:
    y = through(block, x, *block.branch)
    shortcut = x if block.downsample is None else call(block.downsample, "downsample", x)
    return call(block.relu, "relu", y + shortcut)


def _downsample(inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs) -> Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return Sequential(
        [conv(inputs, outputs, 1, stride=stride, rngs=rngs), batch_norm(outputs, rngs=rngs)]
    )


class ResNet(Classifier):
    """ResNet from a kind of block, with options, and the number of blocks in its four stages."""

    parts = Parts(
        features=("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
        pooling=("avgpool",),
        head=("flatten", "fc"),
    )
    torch = TorchLayout(last="fc", rename=foreign.resnet)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        repeats: Sequence[int],
        *,
        classes: int,
        rngs: nnx.Rngs | None,
        **options: Any,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.conv1 = conv(3, WIDTHS[0], 7, stride=2, rngs=rngs)
        self.bn1 = batch_norm(WIDTHS[0], rngs=rngs)
        self.relu = nnx.relu
        self.maxpool = _halve
        inputs = WIDTHS[0]
        for stage, (width, blocks) in enumerate(zip(WIDTHS, repeats, strict=True), start=1):
            layer = Sequential()
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                layer.append(block(inputs, width, stride, rngs=rngs, **options))
                inputs = width * block.expansion
            setattr(self, f"layer{stage}", layer)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.fc = linear(inputs, classes, rngs=rngs)


def resnet18(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes=classes, rngs=rngs)


def resnet34(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNet-34."""
    return ResNet(BasicBlock, (3, 4, 6, 3), classes=classes, rngs=rngs)


def resnet50(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes=classes, rngs=rngs)


def resnet101(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNet-101."""
    return ResNet(Bottleneck, (3, 4, 23, 3), classes=classes, rngs=rngs)


def resnet152(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNet-152."""
    return ResNet(Bottleneck, (3, 8, 36, 3), classes=classes, rngs=rngs)


def resnext50_32x4d(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNeXt-50, 32x4d."""
    groups = {"groups": 32, "group_width": 4}
    return ResNet(Bottleneck, (3, 4, 6, 3), classes=classes, rngs=rngs, **groups)


def resnext101_32x8d(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNeXt-101, 32x8d."""
    groups = {"groups": 32, "group_width": 8}
    return ResNet(Bottleneck, (3, 4, 23, 3), classes=classes, rngs=rngs, **groups)


def resnext101_64x4d(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build ResNeXt-101, 64x4d."""
    groups = {"groups": 64, "group_width": 4}
    return ResNet(Bottleneck, (3, 4, 23, 3), classes=classes, rngs=rngs, **groups)


def wide_resnet50_2(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build Wide ResNet-50, twice as wide inside its blocks."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes=classes, rngs=rngs, group_width=128)


def wide_resnet101_2(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> ResNet:
    """Build Wide ResNet-101, twice as wide inside its blocks."""
    return ResNet(Bottleneck, (3, 4, 23, 3), classes=classes, rngs=rngs, group_width=128)
