"""GoogLeNet, as torchvision lays it out.

Reference: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015. Differs from the paper as
torchvision does: BatchNorm follows every convolution, and 3x3 stands for 5x5. The auxiliary
classifiers, which training alone needs, are left out.
"""

from __future__ import annotations

from functools import partial

from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    flatten,
    global_average_pool,
    linear,
    max_pool,
)
from jaxattr.models.inception import Mixed, basic, transform_input, without_auxiliary

_halve = partial(max_pool, size=3, stride=2, ceil=True)
_spread = partial(max_pool, size=3, stride=1, padding=1)

# Channels of each module's 1x1 branch, of the two convolutions of the next two, of the pooled one.
MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


class GoogLeNet(Classifier):
    """GoogLeNet; images come normalized as for the other models."""

    parts = Parts(
        features=(
            *("transform_input", "conv1", "maxpool1", "conv2", "conv3", "maxpool2"),
            *("inception3a", "inception3b", "maxpool3"),
            *(f"inception4{letter}" for letter in "abcde"),
            *("maxpool4", "inception5a", "inception5b"),
        ),
        pooling=("avgpool",),
        head=("flatten", "fc"),
    )
    torch = TorchLayout(last="fc", rename=without_auxiliary)

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.transform_input = transform_input
        self.conv1 = basic(3, 64, 7, stride=2, rngs=rngs)
        self.conv2 = basic(64, 64, 1, rngs=rngs)
        self.conv3 = basic(64, 192, 3, rngs=rngs)
        self.maxpool1 = self.maxpool2 = self.maxpool3 = _halve
        self.maxpool4 = partial(max_pool, size=2, stride=2, ceil=True)
        inputs = 192
        for name, (one, (_, three), (_, five), pooled) in MODULES.items():
            setattr(self, f"inception{name}", _module(inputs, name, rngs=rngs))
            inputs = one + three + five + pooled
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.fc = linear(inputs, classes, rngs=rngs)


def _module(inputs: int, name: str, *, rngs: nnx.Rngs) -> Mixed:
    one, three, five, pooled = MODULES[name]
    layer = partial(basic, rngs=rngs)
    return Mixed(
        (("branch1",), ("branch2",), ("branch3",), ("branch4",)),
        branch1=layer(inputs, one, 1),
        branch2=Sequential([layer(inputs, three[0], 1), layer(*three, 3)]),
        branch3=Sequential([layer(inputs, five[0], 1), layer(*five, 3)]),
        branch4=Sequential([_spread, layer(inputs, pooled, 1)]),
    )


def googlenet(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> GoogLeNet:
    """Build GoogLeNet."""
    return GoogLeNet(classes=classes, rngs=rngs)
