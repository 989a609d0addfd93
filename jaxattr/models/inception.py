"""Inception-V3, as torchvision lays it out.

Reference: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
The auxiliary classifier, which training alone needs, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import jax.numpy as jnp
from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Named,
    Parts,
    TorchLayout,
    average_pool,
    batch_norm,
    call,
    conv,
    flatten,
    global_average_pool,
    linear,
    max_pool,
)
from jaxattr.models.preprocess import IMAGENET_MEAN, IMAGENET_STD
from jaxattr.types import Array

Branch: TypeAlias = Sequence[str | tuple[str, ...]]
"""The names of layers one after the other; those in a tuple stand side by side."""

_halve = partial(max_pool, size=3, stride=2)
_smooth = partial(average_pool, size=3, stride=1, padding=1)


class Mixed(nnx.Module):
    """Branches side by side, whose channels are put one behind the other."""

    def __init__(self, branches: Sequence[Branch], **layers: Callable[[Array], Array]):
        self.branches = tuple(branches)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, x: Array) -> Array:
        """Apply all branches."""
        return jnp.concatenate([self._branch(x, b) for b in self.branches], axis=-1)

    def _branch(self, x: Array, branch: Branch) -> Array:
        for step in branch:
            names = (step,) if isinstance(step, str) else step
            parts = [call(getattr(self, name), name, x) for name in names]
            x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        return x


def basic(
    inputs: int,
    outputs: int,
    size: int | tuple[int, int],
    *,
    rngs: nnx.Rngs,
    stride: int = 1,
    padding: int | None = None,
) -> Named:
    """Build a convolution with BatchNorm and ReLU."""
    return Named(
        conv=conv(inputs, outputs, size, stride=stride, padding=padding, rngs=rngs),
        bn=batch_norm(outputs, epsilon=1e-3, rngs=rngs),
        relu=nnx.relu,
    )


def transform_input(x: Array) -> Array:
    """Normalize by a mean and deviation of 1/2 what was normalized by ImageNet's."""
    mean, std = jnp.asarray(IMAGENET_MEAN, x.dtype), jnp.asarray(IMAGENET_STD, x.dtype)
    return x * (std / 0.5) + (mean - 0.5) / 0.5


def without_auxiliary(key: str) -> str:
    """Leave out the classifiers that training alone needs."""
    return "" if key.lower().startswith("aux") else key


def mixed_a(inputs: int, pooled: int, *, rngs: nnx.Rngs) -> Mixed:
    """Build the module of the 35 x 35 maps (the paper's figure 5)."""
    layer = partial(basic, rngs=rngs)
    return Mixed(
        (
            ("branch1x1",),
            ("branch5x5_1", "branch5x5_2"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            ("pool", "branch_pool"),
        ),
        branch1x1=layer(inputs, 64, 1),
        branch5x5_1=layer(inputs, 48, 1),
        branch5x5_2=layer(48, 64, 5),
        branch3x3dbl_1=layer(inputs, 64, 1),
        branch3x3dbl_2=layer(64, 96, 3),
        branch3x3dbl_3=layer(96, 96, 3),
        pool=_smooth,
        branch_pool=layer(inputs, pooled, 1),
    )


def mixed_b(inputs: int, *, rngs: nnx.Rngs) -> Mixed:
    """Build the module that leads to the 17 x 17 maps."""
    layer = partial(basic, rngs=rngs)
    return Mixed(
        (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("pool",)),
        branch3x3=layer(inputs, 384, 3, stride=2, padding=0),
        branch3x3dbl_1=layer(inputs, 64, 1),
        branch3x3dbl_2=layer(64, 96, 3),
        branch3x3dbl_3=layer(96, 96, 3, stride=2, padding=0),
        pool=_halve,
    )


def mixed_c(inputs: int, width: int, *, rngs: nnx.Rngs) -> Mixed:
    """Build the module of the 17 x 17 maps (figure 6)."""
    layer = partial(basic, rngs=rngs)
    deep = tuple(f"branch7x7dbl_{i}" for i in range(1, 6))
    return Mixed(
        (
            ("branch1x1",),
            ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
            deep,
            ("pool", "branch_pool"),
        ),
        branch1x1=layer(inputs, 192, 1),
        branch7x7_1=layer(inputs, width, 1),
        branch7x7_2=layer(width, width, (1, 7)),
        branch7x7_3=layer(width, 192, (7, 1)),
        branch7x7dbl_1=layer(inputs, width, 1),
        branch7x7dbl_2=layer(width, width, (7, 1)),
        branch7x7dbl_3=layer(width, width, (1, 7)),
        branch7x7dbl_4=layer(width, width, (7, 1)),
        branch7x7dbl_5=layer(width, 192, (1, 7)),
        pool=_smooth,
        branch_pool=layer(inputs, 192, 1),
    )


def mixed_d(inputs: int, *, rngs: nnx.Rngs) -> Mixed:
    """Build the module that leads to the 8 x 8 maps."""
    layer = partial(basic, rngs=rngs)
    deep = tuple(f"branch7x7x3_{i}" for i in range(1, 5))
    return Mixed(
        (("branch3x3_1", "branch3x3_2"), deep, ("pool",)),
        branch3x3_1=layer(inputs, 192, 1),
        branch3x3_2=layer(192, 320, 3, stride=2, padding=0),
        branch7x7x3_1=layer(inputs, 192, 1),
        branch7x7x3_2=layer(192, 192, (1, 7)),
        branch7x7x3_3=layer(192, 192, (7, 1)),
        branch7x7x3_4=layer(192, 192, 3, stride=2, padding=0),
        pool=_halve,
    )


def mixed_e(inputs: int, *, rngs: nnx.Rngs) -> Mixed:
    """Build the module of the 8 x 8 maps (figure 7)."""
    layer = partial(basic, rngs=rngs)
    return Mixed(
        (
            ("branch1x1",),
            ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
            ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
            ("pool", "branch_pool"),
        ),
        branch1x1=layer(inputs, 320, 1),
        branch3x3_1=layer(inputs, 384, 1),
        branch3x3_2a=layer(384, 384, (1, 3)),
        branch3x3_2b=layer(384, 384, (3, 1)),
        branch3x3dbl_1=layer(inputs, 448, 1),
        branch3x3dbl_2=layer(448, 384, 3),
        branch3x3dbl_3a=layer(384, 384, (1, 3)),
        branch3x3dbl_3b=layer(384, 384, (3, 1)),
        pool=_smooth,
        branch_pool=layer(inputs, 192, 1),
    )


class InceptionV3(Classifier):
    """Inception-V3, for images of 299 x 299, at least 75 x 75.

    Images come normalized as for the other models; `transform_input` does the rest.
    """

    parts = Parts(
        features=(
            *("transform_input", "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
            *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
            *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d"),
            *("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"),
        ),
        pooling=("avgpool",),
        head=("flatten", "fc"),
    )
    torch = TorchLayout(last="fc", rename=without_auxiliary)

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        layer = partial(basic, rngs=rngs)
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = layer(3, 32, 3, stride=2, padding=0)
        self.Conv2d_2a_3x3 = layer(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = layer(32, 64, 3)
        self.maxpool1 = _halve
        self.Conv2d_3b_1x1 = layer(64, 80, 1)
        self.Conv2d_4a_3x3 = layer(80, 192, 3, padding=0)
        self.maxpool2 = _halve
        self.Mixed_5b = mixed_a(192, 32, rngs=rngs)
        self.Mixed_5c = mixed_a(256, 64, rngs=rngs)
        self.Mixed_5d = mixed_a(288, 64, rngs=rngs)
        self.Mixed_6a = mixed_b(288, rngs=rngs)
        for name, width in zip("bcde", (128, 160, 160, 192), strict=True):
            setattr(self, f"Mixed_6{name}", mixed_c(768, width, rngs=rngs))
        self.Mixed_7a = mixed_d(768, rngs=rngs)
        self.Mixed_7b = mixed_e(1280, rngs=rngs)
        self.Mixed_7c = mixed_e(2048, rngs=rngs)
        self.avgpool = global_average_pool
        self.flatten = flatten
        self.fc = linear(2048, classes, rngs=rngs)


def inception_v3(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> InceptionV3:
    """Build Inception-V3."""
    return InceptionV3(classes=classes, rngs=rngs)
