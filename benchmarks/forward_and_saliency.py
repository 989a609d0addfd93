"""Do a forward pass and a saliency map take longer in JAX than in torch, on the same CPU?

EfficientNet-Lite0 and ResNet-50 with random weights, the same in both, batch 8, 224 x 224, float32.
Saliency is the gradient of one logit to the image. torch runs in inference mode for the forward
pass, its parameters need no gradient, and both of its memory layouts are timed. JAX runs the
network as it stands (`own`) and as `with_rules` reads and lowers it (`jaxattr`). In every round
each of them runs once, in turn. Needs torch:

    python benchmarks/forward_and_saliency.py [--rounds 15] [--batch 8]

Printed are medians over the rounds: milliseconds on the clock and of all cores together, and their
ratios to torch in the same round, in the layout that is faster on the whole; of JAX's programs also
the working memory in MiB, by XLA's account. `docs/speed.md` has the figures.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from statistics import median

import jax
import numpy as np
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

from jaxattr import lowered
from jaxattr.models.efficientnet_lite import STAGES, efficientnet_lite0
from jaxattr.models.resnet import resnet50
from weights_conversion import convert

TARGET = 3


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding, which is one-sided at stride 2."""

    def forward(self, x):
        """Convolve."""
        (size, _), (stride, _) = self.kernel_size, self.stride
        if stride == 1:
            return functional.conv2d(x, self.weight, None, 1, size // 2, 1, self.groups)
        low = (size - 2) // 2
        x = functional.pad(x, (low, size - 2 - low) * 2)
        return functional.conv2d(x, self.weight, None, stride, 0, 1, self.groups)


class LiteBlock(nn.Module):
    """EfficientNet-Lite's inverted bottleneck."""

    def __init__(self, inputs, stage, stride):
        super().__init__()
        hidden = inputs * stage.expansion
        self.adds = stride == 1 and inputs == stage.channels
        if stage.expansion != 1:
            self.expand_conv, self.bn0 = Same(inputs, hidden, 1, bias=False), _bn(hidden)
        self.depthwise_conv = Same(hidden, hidden, stage.kernel, stride, groups=hidden, bias=False)
        self.bn1 = _bn(hidden)
        self.project_conv = Same(hidden, stage.channels, 1, bias=False)
        self.bn2 = _bn(stage.channels)

    def forward(self, x):
        """Apply the block."""
        y = functional.relu6(self.bn0(self.expand_conv(x))) if hasattr(self, "bn0") else x
        y = functional.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.adds else y


class Lite0(nn.Module):
    """EfficientNet-Lite0."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn0 = Same(3, 32, 3, 2, bias=False), _bn(32)
        blocks, channels = [], 32
        for stage in STAGES:
            for stride in (stage.stride, *(1,) * (stage.repeats - 1)):
                blocks.append(LiteBlock(channels, stage, stride))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = Same(channels, 1280, 1, bias=False), _bn(1280)
        self.fc = nn.Linear(1280, 1000)

    def forward(self, x):
        """Return the logits."""
        x = self.blocks(functional.relu6(self.bn0(self.conv_stem(x))))
        return self.fc(functional.relu6(self.bn1(self.conv_head(x))).mean((2, 3)))


class Bottleneck(nn.Module):
    """ResNet's bottleneck, its stride at the 3x3 convolution."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if inputs != 4 * width:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        """Apply the block."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """ResNet-50."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for i, blocks in enumerate((3, 4, 6, 3)):
            layer = []
            for j in range(blocks):
                layer.append(Bottleneck(inputs, 64 << i, 2 if i and not j else 1))
                inputs = 256 << i
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x):
        """Return the logits."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def _bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


NETWORKS = {"efficientnet_lite0": (efficientnet_lite0, Lite0), "resnet50": (resnet50, ResNet50)}


def programs(name: str, x: np.ndarray) -> dict[str, dict[str, Callable[[], object]]]:
    """Compile one network: `{"forward": {"torch": run, ...}, "saliency": {...}}`."""
    build, mirror = NETWORKS[name]
    reference = mirror().eval().requires_grad_(False)
    for parameter in reference.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    net = nnx.eval_shape(build)
    weights = {k: v.numpy() for k, v in reference.state_dict().items()}
    nnx.update(net, convert(weights, net))

    def map_of(f: Callable, x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: f(x)[:, TARGET].sum())(x)

    def execute(program: Callable) -> object:
        return jax.block_until_ready(program(net, x))

    def compiled(function: Callable) -> Callable[[], object]:
        return partial(execute, jax.jit(function).lower(net, x).compile())

    def torch_forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    def torch_map(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(model(x)[:, TARGET].sum(), x)[0]

    channels_last = mirror().eval().requires_grad_(False)
    channels_last.load_state_dict(reference.state_dict())
    channels_last.to(memory_format=torch.channels_last)
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
    args = {"torch": (reference, nchw.contiguous()), "torch, channels last": (channels_last, nchw)}
    forward = {k: partial(torch_forward, *a) for k, a in args.items()} | {
        "own": compiled(lambda net, x: net(x)),
        "jaxattr": compiled(lambda net, x: lowered(net)(x)),
    }
    saliency = {k: partial(torch_map, *a) for k, a in args.items()} | {
        "own": compiled(lambda net, x: map_of(net, x)),
        "jaxattr": compiled(lambda net, x: map_of(lowered(net), x)),
    }
    expected, got = forward["torch"](), forward["jaxattr"]()
    np.testing.assert_allclose(got, expected, atol=1e-4 * float(abs(expected).max()))
    return {"forward": forward, "saliency": saliency}


def mebibytes(run: partial) -> float:
    """Return the working memory of a compiled program."""
    return run.args[0].memory_analysis().temp_size_in_bytes / 2**20


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple]]:
    """Time every run once per round: seconds on the clock and of all cores."""
    times: dict[str, list[tuple]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run()
            if round_:  # the first is a warm-up
                times[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    return times


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    shape = (options.batch, 224, 224, 3)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    print(
        f"{'network':20}{'job':10}{'':22}{'ms':>7}{'ratio':>7}{'CPU ms':>9}{'ratio':>7}{'MiB':>6}"
    )
    for name in NETWORKS:
        for job, runs in programs(name, x).items():
            times = measure(runs, options.rounds)
            layouts = [times[k] for k in runs if k.startswith("torch")]
            reference = min(layouts, key=lambda taken: median(t[0] for t in taken))
            for kind, taken in times.items():
                clock, cpu = (1e3 * median(t[i] for t in taken) for i in (0, 1))
                ratios = [
                    median(t[i] / r[i] for t, r in zip(taken, reference, strict=True))
                    for i in (0, 1)
                ]
                row = f"{name:20}{job:10}{kind:22}{clock:7.0f}{ratios[0]:7.2f}"
                memory = "" if kind.startswith("torch") else f"{mebibytes(runs[kind]):6.0f}"
                print(f"{row}{cpu:9.0f}{ratios[1]:7.2f}{memory}", flush=True)


if __name__ == "__main__":
    main()
