"""The networks of `../nets.py` in torch, every activation and pool a module of its own."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

sys.path.insert(0, str(Path(__file__).parents[1]))
from nets import (
    NETS,
    SHAPES,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Mean,
    Net,
    Relu,
    Relu6,
    Residual,
)

HERE = Path(__file__).parent


class PaddedConv(nn.Conv2d):
    """A convolution that may pad its four sides differently."""

    def __init__(self, layer: Conv):
        _, inputs, features, kernel, stride, padding, groups, bias = layer
        super().__init__(inputs, features, kernel, stride, groups=groups, bias=bias)
        (top, bottom), (left, right) = padding
        self.sides = (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.sides))


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class ResidualBlock(nn.Module):
    def __init__(self, layer: Residual):
        super().__init__()
        self.add = Add()
        self.parts = [[part.name for part in parts] for parts in layer[1:]]
        for part in layer.main + layer.shortcut + layer.after:
            self.add_module(part.name, module(part))

    def through(self, names: list[str], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        main, shortcut, after = self.parts
        return self.through(after, self.add(self.through(main, x), self.through(shortcut, x)))


def module(layer: Layer) -> nn.Module:
    """Build one layer."""
    match layer:
        case Conv(
            _, inputs, features, kernel, stride, ((top, bottom), (left, right)), groups, bias
        ):
            if (top, left) != (bottom, right):
                return PaddedConv(layer)
            return nn.Conv2d(
                inputs, features, kernel, stride, (top, left), groups=groups, bias=bias
            )
        case BatchNorm(_, features):
            return nn.BatchNorm2d(features)
        case Dense(_, inputs, features):
            return nn.Linear(inputs, features)
        case Relu():
            return nn.ReLU()
        case Relu6():
            return nn.ReLU6()
        case MaxPool(_, size, stride, padding):
            return nn.MaxPool2d(size, stride, padding)
        case AvgPool(_, size):
            return nn.AvgPool2d(size)
        case Mean():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case Flatten():
            return nn.Flatten()
        case Residual():
            return ResidualBlock(layer)


def build(net: Net) -> nn.Sequential:
    """Build a network, in evaluation mode."""
    model = nn.Sequential()
    for layer in net:
        model.add_module(layer.name, module(layer))
    return model.eval()


def draw(name: str, seed: int) -> tuple[nn.Sequential, Tensor]:
    """Draw weights that keep activations alive, ReLU6 saturated at times, and three images."""
    key = torch.Generator().manual_seed(seed)
    model = build(NETS[name])

    def normal(like: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(like.shape, generator=key)

    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.copy_(normal(part.weight, (2 / part.weight[0].numel()) ** 0.5))
                if part.bias is not None:
                    part.bias.copy_(normal(part.bias, 0.3))
            if isinstance(part, nn.BatchNorm2d):
                low, high = (1.0, 2.5) if name == "lite" else (0.5, 1.5)
                sign = 1 - 2.0 * (torch.rand(part.weight.shape, generator=key) < 0.3)
                size = low + (high - low) * torch.rand(part.weight.shape, generator=key)
                part.weight.copy_(sign * size)
                part.bias.copy_(normal(part.bias, 0.5))
                part.running_mean.copy_(normal(part.running_mean, 0.3))
                part.running_var.copy_(0.5 + 1.5 * torch.rand(part.weight.shape, generator=key))
    batch, height, width, channels = SHAPES[name]
    return model, torch.randn((batch, channels, height, width), generator=key)


def fold(model: nn.Module) -> nn.Module:
    """Merge every BatchNorm into the convolution before it, in place."""
    for parent in list(model.modules()):
        parts = list(parent.named_children())
        for (before, conv), (name, norm) in pairwise(parts):
            if isinstance(norm, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(conv, norm))
                setattr(parent, name, nn.Identity())
    return model


def load(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Read a network, its images and its classes as `make_peers.py` wrote them."""
    with np.load(HERE / f"peers_{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file}
    model = build(NETS[name])
    state = {key.removeprefix("net."): arrays[key] for key in arrays if key.startswith("net.")}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("num_batches_tracked" in key for key in missing)
    for part in model.parameters():
        part.requires_grad_(False)
    return model.to(dtype), arrays["x"].to(dtype), arrays["target"]
