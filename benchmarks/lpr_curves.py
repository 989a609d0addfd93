"""LPR's Fig. 5 and 9: what is left of the logit while the most, or least, attributed pixels go?

    python benchmarks/lpr_curves.py NETWORK DATA OUT [--weights PATH] [--images 1000]

NETWORK is `mnist_cnn`, `cifar_cnn` or `cifar_vgg16`, of which PATH is the folder `weights` that
`train.py` wrote, or a network of ImageNet or CIFAR-10 (`vgg16`, `cifar_resnet20`), of which PATH
are the weights if no package has them. The class explained is the predicted one. Up to 5 % of the
pixels become zero in 20 steps, of signed maps with the channels summed; of saliency
their magnitudes (`readings.LPR`). Rows per image are written to OUT/NETWORK-METHOD.csv after every
batch: a run that was stopped resumes there. OUT/NETWORK.md has the areas under the curves (MoRF:
less is better; LeRF: more is), OUT/NETWORK.curves.png the curves.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tables
import train
from accuracy import sample
from matplotlib.figure import Figure
from readings import LPR, reading
from scoreboard import Rows, Scores, measure, read

import jaxattr
from jaxattr import metrics
from jaxattr.methods.lpr import smoothed
from jaxattr.methods.plugins import convolution
from jaxattr.models import load
from jaxattr.rules import lrp
from jaxattr.rules.composites import uniform

STEPS = 20
SMOOTH = {"samples": 50, "chunk": 10}
METHODS: dict[str, Callable] = {
    "saliency": jaxattr.saliency,
    "input_x_gradient": jaxattr.input_x_gradient,
    "epsilon-LRP": lambda f: jaxattr.lrp(f, composite=uniform(lrp.epsilon())),
    "deeplift": jaxattr.deeplift,
    "integrated_gradients": lambda f: jaxattr.integrated_gradients(f, steps=50, chunk=10),
    "smoothgrad": lambda f: jaxattr.smoothgrad(jaxattr.saliency(f), **SMOOTH),
    "smoothgrad_squared": lambda f: jaxattr.smoothgrad_squared(jaxattr.saliency(f), **SMOOTH),
    "guided_backprop": jaxattr.guided_backprop,
    "rise": lambda f: jaxattr.rise(f, samples=1000, chunk=10),
    "meaningful_perturbation": lambda f: jaxattr.meaningful_perturbation(f, steps=300),
    "dmbp": lambda f: jaxattr.dmbp(f, steps=10),
    "tr_gbp": jaxattr.tr_gbp,
    "lpr": jaxattr.lpr,
    "lpr, one parameter a channel": lambda f: jaxattr.lpr(f, per_channel=True),
    "lpr, between convolutions": lambda f: jaxattr.lpr(f, between_convolutions=True),
    "lpr, likelihood": lambda f: jaxattr.lpr(f, origin=jaxattr.scores.log_probability),
    "lpr, masks of eq. 6": lambda f: jaxattr.lpr(f, masks=smoothed(2.0)),
    "lpr, convolution": lambda f: jaxattr.lpr(f, plugin=convolution(jax.random.key(0))),
    "lpr, not sign-aware": lambda f: jaxattr.lpr(f, sign_aware=False),
    "lpr, no baseline": lambda f: jaxattr.lpr(f, baseline=None),
}


def network(
    name: str, data: Path, weights: Path | None, images: int
) -> tuple[Callable, np.ndarray, np.ndarray]:
    """Return a network, and every k-th of the images that it is tested on, with their classes."""
    if name not in train.RECIPES:
        pretrained, x, label = sample(data, name, images, weights)
        return pretrained.model, x, label
    every = (train.mnist if name == "mnist_cnn" else train.cifar10)(data)
    mean, deviation = train.scale(every)
    chosen = slice(0, len(every.x_test) // images * images, len(every.x_test) // images)
    x = (every.x_test[chosen] - mean) / deviation
    return load(name, path=weights).model, x, every.label_test[chosen]


def curves(name: str, net: Callable, x: jax.Array) -> Scores:
    """Return both curves of a batch, a column for each step."""
    f = lambda x: net(x)
    target = f(x).argmax(-1)
    a = reading(LPR, name)(METHODS[name](f)(x, target, key=jax.random.key(0)), x)
    found = {}
    for label, metric in (("MoRF", metrics.morf), ("LeRF", metrics.lerf)):
        curve = metric(f, steps=STEPS)(x, target, a).curve
        found |= {f"{label} {i}": curve[:, i] for i in range(STEPS + 1)}
    return found


def mean_curve(rows: Rows, label: str) -> np.ndarray:
    """Average a curve over the images."""
    return np.nanmean([[row[f"{label} {i}"] for i in range(STEPS + 1)] for row in rows], 0)


def area(row: dict[str, float], label: str) -> float:
    """Return the mean height of an image's curve."""
    values = [row[f"{label} {i}"] for i in range(STEPS + 1)]
    return float(np.trapezoid(values) / STEPS)


def draw(every: dict[str, Rows]) -> Figure:
    """Draw the curves of all methods, MoRF to the left."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, label in zip(panels, ("MoRF", "LeRF"), strict=True):
        for name, rows in every.items():
            line = "-" if name.startswith("lpr") else "--"
            at = np.linspace(0, 5, STEPS + 1)
            panel.plot(at, mean_curve(rows, label), line, label=name, linewidth=1.2)
        panel.set(title=label, xlabel="pixels removed, %", ylabel="logit left")
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", frameon=False)
    return figure


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--methods", help="names with semicolons between them; by default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    net, x, _ = network(options.network, options.data, options.weights, options.images)
    file = lambda name: options.out / f"{options.network}-{name}.csv"
    for name in options.methods.split(";") if options.methods else METHODS:
        run = jax.jit(partial(curves, name))
        batches = ((x[i : i + options.batch],) for i in range(0, len(x), options.batch))
        measure(file(name), batches, lambda start, batch, run=run: run(net, *batch), len(x))
    every = {name: rows for name in METHODS if len(rows := read(file(name))) == len(x)}
    cells = {
        (name, label): tables.cell(area(row, label) for row in rows)
        for name, rows in every.items()
        for label in ("MoRF", "LeRF")
    }
    tables.write(options.out / f"{options.network}.areas.csv", cells)
    tables.report(options.out / options.network, cells, {})
    draw(every).savefig(options.out / f"{options.network}.curves.png", dpi=120)


if __name__ == "__main__":
    main()
