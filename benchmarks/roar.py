"""Remove and retrain: how much do networks lose that never see the most attributed pixels?

    python benchmarks/roar.py DATA OUT [--train 5000] [--test 2000] [--epochs 10] [--methods ...]

CIFAR-10. The maps are those of the trained ResNet-20 for the true class, their magnitudes summed
over the channels. Of every training and test image the highest 10, 30, 50, 70 and 90 % of the
pixels are replaced by the mean color, a small convolutional network is trained from scratch on
what is left, and its accuracy on the masked test images is reported: the lower, the better the
map. Random maps and SmoothGrad-Squared are the controls (Hooker et al., NeurIPS 2019). Every
accuracy is written to OUT/accuracies.csv as soon as it is known; a run that was stopped resumes
there.
"""

import csv
import os
import zipfile
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from PIL import Image
from scoreboard import current
from tqdm import tqdm

from jaxattr import catalogue, metrics
from jaxattr.models import load

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
METHODS = (
    "random",
    "input_x_gradient",
    "guided_backprop",
    "smoothgrad_squared",
    "grad_cam",
    "dmbp",
)
OPTIONS: dict[str, dict[str, Any]] = {"dmbp": {"steps": 10}, "smoothgrad_squared": {"samples": 15}}


class Net(nnx.Module):
    """Three convolutions, each with a pool, and a dense layer."""

    def __init__(self, rngs: nnx.Rngs):
        pairs = pairwise((3, 32, 64, 128))
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in pairs])
        self.dense = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits."""
        for conv in self.convs:
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        return self.dense(x.mean((1, 2)))


def retrain(x: np.ndarray, label: np.ndarray, *, epochs: int, batch: int = 50) -> nnx.State:
    """Train from scratch, and return what was learned."""
    graph, parameters = nnx.split(Net(nnx.Rngs(0)))
    turns = len(x) // batch
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, epochs * turns))

    # a step at a time: XLA's gradients of weights are slow in loops on the CPU
    @jax.jit
    def step(parameters: Any, memory: Any, x: jax.Array, label: jax.Array) -> tuple[Any, Any]:
        def loss(parameters: Any) -> jax.Array:
            logits = nnx.merge(graph, parameters)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        update, memory = optimizer.update(jax.grad(loss)(parameters), memory)
        return optax.apply_updates(parameters, update), memory

    memory = optimizer.init(parameters)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(x))[: turns * batch]
        for chosen in order.reshape(turns, batch):
            parameters, memory = step(parameters, memory, x[chosen], label[chosen])
    return parameters


@jax.jit
def accuracy(parameters: nnx.State, x: jax.Array, label: jax.Array) -> jax.Array:
    net = nnx.merge(nnx.graphdef(Net(nnx.Rngs(0))), parameters)
    return (net(x).argmax(-1) == label).mean()


def images(data: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the first images of a part of CIFAR-10, and their classes."""
    with zipfile.ZipFile(data / "cifar10_webp.zip") as archive:
        labels = np.load(BytesIO(archive.read(f"{part}_labels.npy")))[:count]
        strips = [
            np.asarray(Image.open(BytesIO(archive.read(f"{part}/{i:03}.webp"))).convert("RGB"))
            for i in range(-(-count // 500))
        ]
    return np.concatenate(strips).reshape(-1, 32, 32, 3)[:count], labels


def explain(name: str, net: Callable, x: np.ndarray, label: np.ndarray, batch: int) -> np.ndarray:
    """Return the maps of a method for the true classes."""
    if name == "random":
        return np.asarray(jax.random.uniform(jax.random.key(1), x.shape[:3]))

    @jax.jit
    def attribute(net: Callable, x: jax.Array, label: jax.Array) -> jax.Array:
        chain, options = catalogue.find(name), OPTIONS.get(name, {})
        explained = catalogue.build(chain, lambda x: net(x), **options)
        return metrics.magnitude_sum(explained(x, label, key=jax.random.key(0)))

    parts = range(0, len(x), batch)
    return np.concatenate(
        [
            attribute(net, x[i : i + batch], label[i : i + batch])
            for i in tqdm(parts, desc=f"{name}: maps", leave=False)
        ]
    )


def draw(found: dict[tuple[str, float], float]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for name in dict.fromkeys(name for name, _ in found):
        points = sorted((f, a) for (n, f), a in found.items() if n == name)
        panel.plot(*zip(*points, strict=True), marker=".", label=name)
    panel.set(xlabel="part of the pixels removed", ylabel="accuracy after retraining")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "accuracies.csv"
    found: dict[tuple[str, float], float] = {}
    if path.exists():
        with path.open() as stream:
            found = {(current(name), float(f)): float(a) for name, f, a in csv.reader(stream)}
    (file,) = (options.data / "cifar_resnets").glob("resnet20-*.th")
    net, preprocess, _ = load("cifar_resnet20", path=file)
    parts = {}
    for part, count in (("train", options.train), ("test", options.test)):
        pixels, label = images(options.data, part, count)
        parts[part] = np.stack([preprocess(Image.fromarray(p)) for p in pixels]), label
    (x, label), (x_test, label_test) = parts["train"], parts["test"]
    mean = x.mean((0, 1, 2))
    for name in options.methods.split(","):
        wanted = (0.0, *FRACTIONS) if name == "random" else FRACTIONS
        todo = [f for f in wanted if (name, f) not in found]
        if not todo:
            continue
        maps = [explain(name, net, *parts[part], batch=100) for part in ("train", "test")]
        for fraction in tqdm(todo, desc=f"{name}: retraining", leave=False):
            without = partial(metrics.roar, fraction=fraction, baseline=jnp.asarray(mean))
            left = np.asarray(without(x, maps[0]))
            learned = retrain(left, label, epochs=options.epochs)
            found[name, fraction] = float(accuracy(learned, without(x_test, maps[1]), label_test))
            draft = path.with_suffix(".draft")
            with draft.open("w", newline="") as stream:
                csv.writer(stream).writerows((n, f, a) for (n, f), a in found.items())
            os.replace(draft, path)
    draw(found).savefig(options.out / "accuracies.png", dpi=120)
    print(f"| pixels removed | {' | '.join(f'{f:.0%}' for f in FRACTIONS)} |")
    print(f"|---|{'---:|' * len(FRACTIONS)}")
    for name in dict.fromkeys(name for name, _ in found):
        cells = [f"{100 * found[name, f]:.1f}" for f in FRACTIONS if (name, f) in found]
        print(f"| `{name}` | {' | '.join(cells)} |")
    if ("random", 0.0) in found:
        print(f"\nNothing removed: {100 * found['random', 0.0]:.1f} %")


if __name__ == "__main__":
    main()
