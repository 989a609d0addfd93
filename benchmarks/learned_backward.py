"""How many forward passes does a step of DMBP or LPR cost, and how many by double backpropagation?

    python benchmarks/learned_backward.py [vgg16 resnet50] [--batch 1] [--rounds 5]

VGG-16 and ResNet-50 with random weights, 224 x 224, float32. A step is timed inside the loop, as
the difference between two runs of different length. The unit is the same library's own forward
pass, timed in the same round; jaxattr's is lowered. It is compared with plain double
backpropagation in torch (needs torch): a forward pass, the two masked backward passes with bias
gradients, and their derivative. Printed are medians over the rounds.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable
from statistics import median
from unittest.mock import patch

import jax
import jax.numpy as jnp
from flax import nnx

import jaxattr
from jaxattr import models

SHORT, LONG = 2, 6
METHODS = {"dmbp": jaxattr.dmbp, "lpr": jaxattr.lpr}


def jax_runs(name: str, batch: int) -> dict[str, Callable[[], object]]:
    """Compile the forward pass and both methods at two lengths."""
    graph, state = nnx.split(getattr(models, name)())
    x = jax.random.normal(jax.random.key(0), (batch, 224, 224, 3))
    target = jnp.zeros(batch, int)

    def compiled(function: Callable) -> Callable[[], object]:
        program = jax.jit(lambda state, x: function(nnx.merge(graph, state))(x))
        program = program.lower(state, x).compile()
        return lambda: jax.block_until_ready(program(state, x))

    runs = {"jaxattr": compiled(lambda net: jaxattr.lowered(net))}
    for method, make in METHODS.items():
        for steps in (SHORT, LONG):

            def explain(net: Callable, make=make, steps=steps) -> Callable:
                return lambda x: make(net, steps=steps)(x, target)

            runs[f"{method} {steps}"] = compiled(explain)
    return runs


def torch_runs(name: str, batch: int) -> dict[str, Callable[[], object]]:
    """Make the forward pass, and a step of DMBP by double backpropagation."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Masked(torch.autograd.Function):
        """A ReLU whose gradient is multiplied by a mask."""

        @staticmethod
        def forward(ctx, z, mask):
            """Rectify."""
            ctx.save_for_backward(z > 0, mask)
            return z.clamp(min=0)

        @staticmethod
        def backward(ctx, g):
            """Gate and mask."""
            gate, mask = ctx.saved_tensors
            return g * gate * mask, None

    class VGG16(nn.Module):
        """VGG-16 without its names."""

        def __init__(self):
            super().__init__()
            widths = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3)
            channels, self.layers = 3, nn.ModuleList()
            for width in (*widths, "M"):
                pool = width == "M"
                layer = nn.MaxPool2d(2) if pool else nn.Conv2d(channels, width, 3, padding=1)
                self.layers.append(layer)
                channels = channels if pool else width
            sizes = (512 * 49, 4096, 4096, 1000)
            self.dense = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))

        def forward(self, x):
            """Return the logits."""
            for layer in self.layers:
                x = layer(x)
                x = x if isinstance(layer, nn.MaxPool2d) else functional.relu(x)
            x = functional.relu(self.dense[0](x.flatten(1)))
            return self.dense[2](functional.relu(self.dense[1](x)))

    if name == "vgg16":
        model = VGG16().eval()
    else:
        from forward_and_saliency import ResNet50

        model = ResNet50().eval()
    model.requires_grad_(False)
    biases = [p for key, p in model.named_parameters() if key.endswith("bias")]
    for b in biases:
        b.requires_grad_(True)
    x = torch.randn(batch, 3, 224, 224)
    shapes: list[torch.Tensor] = []

    def collect(z, inplace=False):
        shapes.append(torch.zeros_like(z))
        return z.clamp(min=0)

    with patch.object(functional, "relu", collect), torch.no_grad():
        model(x)
    theta = [s.requires_grad_(True) for s in shapes]
    optimizer = torch.optim.RMSprop(theta, lr=0.01)

    def forward():
        with torch.inference_mode():
            return model(x)

    def part(masks):
        left = iter(masks)
        image = x.clone().requires_grad_(True)
        masked = lambda z, inplace=False: Masked.apply(z, next(left))
        with patch.object(functional, "relu", masked):
            score = model(image)[:, 0].sum()
        g, *terms = torch.autograd.grad(score, [image, *biases], create_graph=True)
        return (g * image).sum() + sum((t * b).sum() for t, b in zip(terms, biases, strict=True))

    def step():
        y = forward()[:, 0].sum()
        s = [t.sigmoid() for t in theta]
        plus, minus = part(s), part([1 - m for m in s])
        optimizer.zero_grad()
        (minus - plus + (y - plus - minus).abs()).backward(inputs=theta)
        optimizer.step()

    return {"torch": forward, "double backpropagation, torch": step}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["vgg16", "resnet50"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| | | ms per step and image | forward passes |\n|---|---|---:|---:|")
    for name in options.networks:
        runs = jax_runs(name, options.batch) | torch_runs(name, options.batch)
        for run in runs.values():
            run()
        rounds = [{k: seconds(run) for k, run in runs.items()} for _ in range(options.rounds)]
        taken = {
            method: [
                (r[f"{method} {LONG}"] - r[f"{method} {SHORT}"]) / (LONG - SHORT) for r in rounds
            ]
            for method in METHODS
        }
        rows = [(method, taken[method], "jaxattr") for method in METHODS]
        slow = "double backpropagation, torch"
        rows += [(slow, [r[slow] for r in rounds], "torch")]
        for what, times, unit in rows:
            each = 1000 * median(times) / options.batch
            passes = median(t / r[unit] for t, r in zip(times, rounds, strict=True))
            print(f"| {name} | {what} | {each:.0f} | {passes:.1f} |", flush=True)
        base = 1000 * median(r["jaxattr"] for r in rounds) / options.batch
        other = 1000 * median(r["torch"] for r in rounds) / options.batch
        print(
            f"| {name} | forward pass: jaxattr {base:.0f} ms, torch {other:.0f} ms | | |",
            flush=True,
        )


if __name__ == "__main__":
    main()
