"""The narrow ResNets of CIFAR-10, with shortcuts that have no weights.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2, with
option A: where a stage halves the maps, its shortcut takes every second row and column and fills
the new channels with zeros.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

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
    identity,
    linear,
    through,
)
from jaxattr.types import Array

WIDTHS = (16, 32, 64)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and the input added back."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        stride = 1 if inputs == outputs else 2
        self.conv1 = conv(inputs, outputs, 3, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(outputs, rngs=rngs)
        self.conv2 = conv(outputs, outputs, 3, rngs=rngs)
        self.bn2 = batch_norm(outputs, rngs=rngs)
        self.relu = nnx.relu
        self.shortcut = identity if stride == 1 else halve_and_widen

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        y = through(self, x, "conv1", "bn1", "relu", "conv2", "bn2")
        return call(self.relu, "relu", y + through(self, x, "shortcut"))


def halve_and_widen(x: Array) -> Array:
    """Take every second row and column, and add zero channels, as many before as behind."""
    half = x.shape[-1] // 2
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (half, half)))


class CifarResNet(Classifier):
    """The CIFAR ResNet with `repeats` blocks in each of its three stages."""

    parts = Parts(
        features=("conv1", "bn1", "relu", "layer1", "layer2", "layer3"),
        pooling=("avgpool",),
        head=("flatten", "linear"),
    )
    torch = TorchLayout(last="linear")

    def __init__(self, repeats: int, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.conv1 = conv(3, WIDTHS[0], 3, rngs=rngs)
        self.bn1 = batch_norm(WIDTHS[0], rngs=rngs)
        self.relu = nnx.relu
        inputs = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, start=1):
            layer = Sequential()
            for _ in range(repeats):
                layer.append(BasicBlock(inputs, width, rngs=rngs))
                inputs = width
            setattr(self, f"layer{stage}", layer)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.linear = linear(inputs, classes, rngs=rngs)


def cifar_resnet20(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> CifarResNet:
    """Build the CIFAR ResNet-20."""
    return CifarResNet(3, classes=classes, rngs=rngs)


def cifar_resnet32(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> CifarResNet:
    """Build the CIFAR ResNet-32."""
    return CifarResNet(5, classes=classes, rngs=rngs)


def cifar_resnet44(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> CifarResNet:
    """Build the CIFAR ResNet-44."""
    return CifarResNet(7, classes=classes, rngs=rngs)


def cifar_resnet56(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> CifarResNet:
    """Build the CIFAR ResNet-56."""
    return CifarResNet(9, classes=classes, rngs=rngs)
