"""Small networks for MNIST and CIFAR-10, as LPR's experiments take them.

The paper names their convolutions only ("a customized CNN model with two convolutional layers",
"four convolutional layers", VGG-16); the rest is ours. `python benchmarks/train.py` trains them.

Reference: LPR, section 4.2, figure 5 and table 1.
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
    batch_norm,
    conv,
    flatten,
    global_average_pool,
    linear,
    max_pool,
)
from jaxattr.models.vgg import CONVOLUTIONS
from jaxattr.models.vgg import WIDTHS as VGG_WIDTHS

_halve = partial(max_pool, size=2, stride=2)


class SmallCNN(Classifier):
    """Convolutions of 3x3 with a max-pool after each, and two dense layers."""

    parts = Parts(features=("features",), pooling=("flatten",), head=("classifier",))

    def __init__(
        self,
        widths: Sequence[int],
        *,
        side: int,
        hidden: int,
        normalized: bool,
        classes: int,
        rngs: nnx.Rngs | None,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.features, inputs = Sequential(), 3
        for width in widths:
            self.features.append(conv(inputs, width, 3, bias=not normalized, rngs=rngs))
            if normalized:
                self.features.append(batch_norm(width, rngs=rngs))
            self.features.append(nnx.relu)
            self.features.append(_halve)
            inputs, side = width, side // 2
        self.flatten = flatten
        dense = linear(side**2 * inputs, hidden, rngs=rngs), linear(hidden, classes, rngs=rngs)
        self.classifier = Sequential([dense[0], nnx.relu, dense[1]])


class MnistCNN(SmallCNN):
    """Two convolutions, for images of 28 x 28."""

    torch = TorchLayout(last="classifier.2", flatten={"classifier.0": (64, 7, 7)})


class CifarCNN(SmallCNN):
    """Four convolutions, for images of 32 x 32."""

    torch = TorchLayout(last="classifier.2", flatten={"classifier.0": (256, 2, 2)})


class CifarVGG(Classifier):
    """VGG-16's convolutions with BatchNorm, for images of 32 x 32, and one dense layer."""

    parts = Parts(features=("features",), pooling=("avgpool", "flatten"), head=("classifier",))
    torch = TorchLayout(last="classifier")

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.features, inputs = Sequential(), 3
        for width, repeats in zip(VGG_WIDTHS, CONVOLUTIONS[16], strict=True):
            for _ in range(repeats):
                self.features.append(conv(inputs, width, 3, rngs=rngs))
                self.features.append(batch_norm(width, rngs=rngs))
                self.features.append(nnx.relu)
                inputs = width
            self.features.append(_halve)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.classifier = linear(inputs, classes, rngs=rngs)


def mnist_cnn(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> MnistCNN:
    """Build the network of two convolutions, for images of 28 x 28 in three equal channels."""
    return MnistCNN((32, 64), side=28, hidden=128, normalized=False, classes=classes, rngs=rngs)


def cifar_cnn(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> CifarCNN:
    """Build the network of four convolutions with BatchNorm, for images of 32 x 32."""
    widths = (32, 64, 128, 256)
    return CifarCNN(widths, side=32, hidden=256, normalized=True, classes=classes, rngs=rngs)


def cifar_vgg16(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> CifarVGG:
    """Build VGG-16 for CIFAR-10."""
    return CifarVGG(classes=classes, rngs=rngs)
