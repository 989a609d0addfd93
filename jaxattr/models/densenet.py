"""DenseNet, as torchvision lays it out.

Reference: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Named,
    Parts,
    TorchLayout,
    average_pool,
    batch_norm,
    conv,
    flatten,
    global_average_pool,
    linear,
    max_pool,
    through,
)
from jaxattr.types import Array

_NARROW = 4  # channels of a layer's first convolution, for each that it adds


class DenseLayer(nnx.Module):
    """Two convolutions, each normalized before, whose channels are put behind those that enter."""

    branch = ("norm1", "relu1", "conv1", "norm2", "relu2", "conv2")

    def __init__(self, inputs: int, growth: int, *, rngs: nnx.Rngs):
        self.norm1 = batch_norm(inputs, rngs=rngs)
        self.relu1 = nnx.relu
        self.conv1 = conv(inputs, _NARROW * growth, 1, rngs=rngs)
        self.norm2 = batch_norm(_NARROW * growth, rngs=rngs)
        self.relu2 = nnx.relu
        self.conv2 = conv(_NARROW * growth, growth, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Return the channels that enter, and the new ones."""
        return jnp.concatenate([x, through(self, x, *self.branch)], axis=-1)


def _without_inner_dots(key: str) -> str:
    """Turn `denselayer1.norm.1.weight`, as the checkpoints write it, into `denselayer1.norm1.`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.", r"\1\2.", key)


class DenseNet(Classifier):
    """DenseNet of a number of channels that every layer adds, and of layers in its four blocks."""

    parts = Parts(
        features=("features", "relu"), pooling=("avgpool",), head=("flatten", "classifier")
    )
    torch = TorchLayout(last="classifier", rename=_without_inner_dots)

    def __init__(
        self,
        growth: int,
        repeats: Sequence[int],
        stem: int = 64,
        *,
        classes: int,
        rngs: nnx.Rngs | None,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        layers = {
            "conv0": conv(3, stem, 7, stride=2, rngs=rngs),
            "norm0": batch_norm(stem, rngs=rngs),
            "relu0": nnx.relu,
            "pool0": partial(max_pool, size=3, stride=2, padding=1),
        }
        channels = stem
        for i, count in enumerate(repeats, start=1):
            layers[f"denseblock{i}"] = _block(channels, growth, count, rngs=rngs)
            channels += growth * count
            if i < len(repeats):
                layers[f"transition{i}"] = _transition(channels, rngs=rngs)
                channels //= 2
        layers["norm5"] = batch_norm(channels, rngs=rngs)
        self.features = Named(**layers)
        self.relu = nnx.relu
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.classifier = linear(channels, classes, rngs=rngs)


def _block(channels: int, growth: int, count: int, *, rngs: nnx.Rngs) -> Named:
    inputs = [channels + growth * i for i in range(count)]
    layers = [DenseLayer(c, growth, rngs=rngs) for c in inputs]
    return Named(**{f"denselayer{i}": layer for i, layer in enumerate(layers, start=1)})


def _transition(channels: int, *, rngs: nnx.Rngs) -> Named:
    """Halve the channels and the sides."""
    return Named(
        norm=batch_norm(channels, rngs=rngs),
        relu=nnx.relu,
        conv=conv(channels, channels // 2, 1, rngs=rngs),
        pool=partial(average_pool, size=2, stride=2),
    )


def densenet121(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> DenseNet:
    """Build DenseNet-121."""
    return DenseNet(32, (6, 12, 24, 16), classes=classes, rngs=rngs)


def densenet161(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> DenseNet:
    """Build DenseNet-161."""
    return DenseNet(48, (6, 12, 36, 24), 96, classes=classes, rngs=rngs)


def densenet169(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> DenseNet:
    """Build DenseNet-169."""
    return DenseNet(32, (6, 12, 32, 32), classes=classes, rngs=rngs)


def densenet201(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> DenseNet:
    """Build DenseNet-201."""
    return DenseNet(32, (6, 12, 48, 32), classes=classes, rngs=rngs)
