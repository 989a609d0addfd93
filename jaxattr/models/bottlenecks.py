"""The inverted bottleneck that MobileNetV3 and EfficientNet are made of, with its gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from flax import nnx

from jaxattr.models.blocks import (
    Sequential,
    call,
    conv,
    conv_norm,
    global_average_pool,
    through,
)
from jaxattr.types import Array

Activation = Callable[[Array], Array]


class SqueezeExcitation(nnx.Module):
    """Multiply every channel by a gate that two dense layers make of the channels' means.

    Reference: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    steps = ("avgpool", "fc1", "activation", "fc2", "scale_activation")

    def __init__(
        self,
        channels: int,
        squeezed: int,
        *,
        rngs: nnx.Rngs,
        activation: Activation = nnx.relu,
        gate: Activation = jax.nn.sigmoid,
    ):
        self.avgpool = global_average_pool
        self.fc1 = conv(channels, squeezed, 1, bias=True, rngs=rngs)
        self.activation = activation
        self.fc2 = conv(squeezed, channels, 1, bias=True, rngs=rngs)
        self.scale_activation = gate

    def __call__(self, x: Array) -> Array:
        """Apply the gate."""
        return through(self, x, *self.steps) * x


class Bottleneck(NamedTuple):
    """What an inverted bottleneck consists of.

    Attributes:
        inputs: Channels that enter.
        hidden: Channels in between.
        outputs: Channels that leave.
        kernel: Side of the convolution of each channel.
        stride: Its stride.
        squeezed: Width of the gate, 0 for none.
        activation: Of the convolutions but the last.
        squeeze: Of the gate's first layer.
        gate: Of its last.
        epsilon: Of BatchNorm.
    """

    inputs: int
    hidden: int
    outputs: int
    kernel: int
    stride: int
    squeezed: int
    activation: Activation
    squeeze: Activation
    gate: Activation
    epsilon: float


class InvertedResidual(nnx.Module):
    """Widen, convolve each channel, gate, narrow, and add the input back where shapes agree."""

    def __init__(self, b: Bottleneck, *, rngs: nnx.Rngs):
        def norm(inputs: int, outputs: int, size: int, **options) -> Sequential:
            return conv_norm(inputs, outputs, size, epsilon=b.epsilon, rngs=rngs, **options)

        self.adds = b.stride == 1 and b.inputs == b.outputs
        self.block = Sequential()
        if b.hidden != b.inputs:
            self.block.append(norm(b.inputs, b.hidden, 1, activation=b.activation))
        each = {"stride": b.stride, "groups": b.hidden, "activation": b.activation}
        self.block.append(norm(b.hidden, b.hidden, b.kernel, **each))
        if b.squeezed:
            gates = {"activation": b.squeeze, "gate": b.gate}
            self.block.append(SqueezeExcitation(b.hidden, b.squeezed, rngs=rngs, **gates))
        self.block.append(norm(b.hidden, b.outputs, 1, activation=None))

    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        y = call(self.block, "block", x)
        return x + y if self.adds else y


def stack(bottlenecks: Sequence[Bottleneck], *, rngs: nnx.Rngs) -> Sequential:
    """Build inverted bottlenecks, one after the other."""
    return Sequential([InvertedResidual(b, rngs=rngs) for b in bottlenecks])


def round_channels(channels: float) -> int:
    """Round to a multiple of eight, never by more than a tenth down.

    >>> [round_channels(c) for c in (3, 12, 90.4, 92.1)]
    [8, 16, 88, 96]
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
