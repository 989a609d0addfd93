"""LPR's Table 1: what is left to learn from without the most attributed pixels (ROAR)?

    python benchmarks/roar.py DATA OUT [--epochs 10] [--seeds 2] [--methods lpr,dmbp]

CIFAR-10, the network of four convolutions. It is trained, its maps for the true class are made of
all images, the highest 40 to 90 % of each image's pixels become the mean color, and the same
network is trained from scratch on what is left: the lower its accuracy on the masked test images,
the better the map. Other seeds are other first weights and other maps.

Maps are read as the paper has it: signed and multiplied by the image but for saliency, whose
magnitudes count; the channels are summed. `dmbp` and `smoothgrad_squared` take fewer steps and
samples than by default (`FEWER`).

Every accuracy goes to OUT/roar.csv as soon as it is known, and a training goes on from its last
epoch: a run that was stopped resumes there. OUT/roar.md and OUT/roar.png hold all of them. An epoch
of all images takes about 75 seconds of a CPU, so that the table of nine methods and two seeds, 110
trainings, takes a day on two quiet cores. The paper's recipe and network are not known in full.
"""

import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tables
from readings import LPR, reading
from scoreboard import FEWER
from tqdm import tqdm
from train import RECIPES, Data, Recipe, accuracy, cifar10, scale, train

from jaxattr import catalogue, metrics
from jaxattr.models import load

FRACTIONS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
METHODS = ("random", "smoothgrad_squared", "lpr", "input_x_gradient", "guided_backprop")
METHODS += ("dmbp", "tr_gbp", "lrp", "grad_cam")
PAPER = {
    "original": (80.73,) * 6,
    "random": (73.65, 72.46, 70.89, 68.98, 65.85, 59.58),
    "smoothgrad_squared": (74.90, 72.97, 70.79, 68.33, 65.19, 57.47),
    "lpr": (71.83, 69.81, 67.32, 63.80, 59.08, 50.72),
}
PUBLISHED = {
    (row, f"{f:.0%}"): value
    for row, values in PAPER.items()
    for f, value in zip(FRACTIONS, values, strict=True)
}


def learned(data: Data, folder: Path, recipe: Recipe, seed: int) -> Callable:
    """Train the network, or go on with it, and return it."""
    for _ in train("cifar_cnn", data, folder, recipe, seed=seed):
        pass
    return load("cifar_cnn", path=folder / "weights").model


def explain(name: str, net: Any, x: np.ndarray, label: np.ndarray, seed: int) -> np.ndarray:
    """Return the maps of a method for the true classes, `(n, 32, 32)`."""
    if name == "random":
        return np.random.default_rng(seed).random(x.shape[:3], np.float32)

    @jax.jit
    def attribute(net: Any, x: jax.Array, label: jax.Array) -> jax.Array:
        chain, options = catalogue.find(name), FEWER.get(name, {})
        options = {k: v for k, v in options.items() if k != "layer"}
        a = catalogue.build(chain, lambda x: net(x), **options)(x, label, key=jax.random.key(seed))
        return reading(LPR, name)(a, x)

    starts = tqdm(range(0, len(x), 100), desc=f"{name}: maps", leave=False)
    return np.concatenate([attribute(net, x[i : i + 100], label[i : i + 100]) for i in starts])


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES["cifar_cnn"]._replace(epochs=options.epochs)
    data = cifar10(options.data)
    mean, deviation = scale(data)
    data = data._replace(x=(data.x - mean) / deviation, x_test=(data.x_test - mean) / deviation)
    data = Data(*(a[: options.train] for a in data[:2]), *(a[: options.test] for a in data[2:]))
    nets: dict[int, Any] = {}
    found: dict[tuple[str, int], list[np.ndarray]] = {}

    def original(seed: int) -> Any:
        if seed not in nets:
            nets[seed] = learned(data, options.out / f"original-{seed}", recipe, seed)
        return nets[seed]

    def maps(name: str, seed: int) -> list[np.ndarray]:
        if (name, seed) not in found:
            found.clear()
            pairs = (data.x, data.label), (data.x_test, data.label_test)
            found[name, seed] = [explain(name, original(seed), *pair, seed) for pair in pairs]
        return found[name, seed]

    def measure(name: str, column: str) -> tables.Cell:
        fraction, seed = column.split("%, seed ")
        seed = int(seed)
        if name == "original":
            return tables.Cell(100 * accuracy(original(seed), data.x_test, data.label_test))
        x, x_test = (
            _without(x, a, int(fraction) / 100)
            for x, a in zip((data.x, data.x_test), maps(name, seed), strict=True)
        )
        folder = options.out / f"{name}-{fraction}-{seed}"
        net = learned(data._replace(x=x), folder, recipe, seed)
        right = accuracy(net, x_test, data.label_test)
        shutil.rmtree(folder)
        return tables.Cell(100 * right)

    columns = [f"{f:.0%}, seed {s}" for s in range(options.seeds) for f in FRACTIONS]
    rows = ("original", *options.methods.split(","))
    path = options.out / "roar.csv"
    cells = tables.fill(path, ((row, c) for row in rows for c in columns), measure)
    tables.report(path, tables.over_seeds(cells), PUBLISHED, digits=1)


def _without(x: np.ndarray, a: np.ndarray, fraction: float) -> np.ndarray:
    """Replace the highest pixels by the mean color, which is zero here."""
    parts = range(0, len(x), 1000)
    mask = jax.jit(metrics.roar)
    return np.concatenate(
        [mask(x[i : i + 1000], a[i : i + 1000], fraction=fraction) for i in parts]
    )


if __name__ == "__main__":
    main()
