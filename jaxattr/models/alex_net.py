"""AlexNet, as torchvision lays it out.

Reference: Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
arXiv:1404.5997, a narrower form of the network of NeurIPS 2012.
"""

from __future__ import annotations

from functools import partial

from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    adaptive_average_pool,
    conv,
    flatten,
    identity,
    linear,
    max_pool,
)

_halve = partial(max_pool, size=3, stride=2)
_pool_to_6x6 = partial(adaptive_average_pool, size=6)


class AlexNet(Classifier):
    """AlexNet, for images of at least 63 x 63; `classifier[0]` and `[3]` are dropouts' places."""

    parts = Parts(features=("features",), pooling=("avgpool",), head=("flatten", "classifier"))
    torch = TorchLayout(last="classifier.6", flatten={"classifier.1": (256, 6, 6)})

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        layer = partial(conv, bias=True, rngs=rngs)
        self.features = Sequential(
            [
                *(layer(3, 64, 11, stride=4, padding=2), nnx.relu, _halve),
                *(layer(64, 192, 5), nnx.relu, _halve),
                *(layer(192, 384, 3), nnx.relu),
                *(layer(384, 256, 3), nnx.relu),
                *(layer(256, 256, 3), nnx.relu, _halve),
            ]
        )
        self.avgpool = _pool_to_6x6
        self.flatten = flatten
        self.classifier = Sequential(
            [
                *(identity, linear(256 * 6 * 6, 4096, rngs=rngs), nnx.relu),
                *(identity, linear(4096, 4096, rngs=rngs), nnx.relu),
                linear(4096, classes, rngs=rngs),
            ]
        )


def alexnet(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> AlexNet:
    """Build AlexNet."""
    return AlexNet(classes=classes, rngs=rngs)
