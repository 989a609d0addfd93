"""VGG, with and without BatchNorm, as torchvision lays it out.

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    adaptive_average_pool,
    batch_norm,
    conv,
    flatten,
    identity,
    linear,
    max_pool,
)

WIDTHS = (64, 128, 256, 512, 512)

_halve = partial(max_pool, size=2, stride=2)
_pool_to_7x7 = partial(adaptive_average_pool, size=7)

# Convolutions of each width; a max-pool follows each group.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(Classifier):
    """VGG of a given depth, for images of at least 32 x 32.

    The indices of `features` and `classifier` are torchvision's: `classifier[2]` and
    `classifier[5]` hold the places of its dropouts.
    """

    parts = Parts(features=("features",), pooling=("avgpool",), head=("flatten", "classifier"))
    torch = TorchLayout(last="classifier.6", flatten={"classifier.0": (512, 7, 7)})

    def __init__(
        self, depth: int, *, classes: int, rngs: nnx.Rngs | None, normalized: bool = False
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.features = _features(CONVOLUTIONS[depth], normalized=normalized, rngs=rngs)
        self.avgpool = _pool_to_7x7
        self.flatten = flatten
        self.classifier = Sequential(
            [
                linear(7 * 7 * WIDTHS[-1], 4096, rngs=rngs),
                nnx.relu,
                identity,
                linear(4096, 4096, rngs=rngs),
                nnx.relu,
                identity,
                linear(4096, classes, rngs=rngs),
            ]
        )


def _features(convolutions: Sequence[int], *, normalized: bool, rngs: nnx.Rngs) -> Sequential:
    layers = Sequential()
    inputs = 3
    for width, repeats in zip(WIDTHS, convolutions, strict=True):
        for _ in range(repeats):
            layers.append(conv(inputs, width, 3, bias=True, rngs=rngs))
            if normalized:
                layers.append(batch_norm(width, rngs=rngs))
            layers.append(nnx.relu)
            inputs = width
        layers.append(_halve)
    return layers


def vgg11(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-11 (configuration A)."""
    return VGG(11, classes=classes, rngs=rngs)


def vgg11_bn(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-11 with BatchNorm."""
    return VGG(11, classes=classes, rngs=rngs, normalized=True)


def vgg13(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-13 (configuration B)."""
    return VGG(13, classes=classes, rngs=rngs)


def vgg13_bn(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-13 with BatchNorm."""
    return VGG(13, classes=classes, rngs=rngs, normalized=True)


def vgg16(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-16 (configuration D)."""
    return VGG(16, classes=classes, rngs=rngs)


def vgg16_bn(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-16 with BatchNorm."""
    return VGG(16, classes=classes, rngs=rngs, normalized=True)


def vgg19(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-19 (configuration E)."""
    return VGG(19, classes=classes, rngs=rngs)


def vgg19_bn(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VGG:
    """Build VGG-19 with BatchNorm."""
    return VGG(19, classes=classes, rngs=rngs, normalized=True)
