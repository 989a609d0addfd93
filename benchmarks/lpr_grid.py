"""LPR's Table 2: how much do its curves depend on its hyper-parameters?

    python benchmarks/lpr_grid.py DATA OUT [--network cifar_cnn] [--weights PATH] [--images 50]

Networks are those of `lpr_curves.py`. One hyper-parameter after another is varied over the paper's
ten values, the others kept at their defaults. Of each: the area under the MoRF curve (what is left
of the predicted class's logit while the 5 % most attributed pixels are zeroed; less is better) and
the LeRF curve (least attributed; more is better), channels summed, as means over the images. The
paper has MoRF of VGG-16 on ImageNet. Each value is written to OUT/lpr_grid.csv as soon as it is
known; a run that was stopped resumes there.
"""

from argparse import ArgumentParser
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tables
from lpr_curves import network

from jaxattr import lpr, metrics

GRID: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "gamma": (
        (1, 7.5, 14, 21, 27, 34, 40, 47, 53.5, 60),
        (0.40, 0.27, 0.16, 0.13, 0.14, 0.15, 0.17, 0.18, 0.20, 0.22),
    ),
    "steps": (
        (1, 8, 14, 21, 27, 34, 40, 47, 54, 60),
        (0.86, 0.29, 0.27, 0.27, 0.26, 0.24, 0.23, 0.23, 0.22, 0.23),
    ),
    "lambda_": (
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
        (0.23, 0.22, 0.22, 0.22, 0.22, 0.21, 0.22, 0.21, 0.21, 0.22),
    ),
    "learning_rate": (
        (0.01, 0.06, 0.12, 0.17, 0.23, 0.28, 0.34, 0.39, 0.45, 0.5),
        (0.40, 0.33, 0.29, 0.26, 0.25, 0.25, 0.21, 0.21, 0.20, 0.21),
    ),
    "alpha": (
        (0.55, 0.59, 0.64, 0.68, 0.73, 0.77, 0.82, 0.86, 0.90, 0.95),
        (0.47, 0.37, 0.30, 0.26, 0.23, 0.21, 0.19, 0.18, 0.18, 0.21),
    ),
}
"""Of each hyper-parameter the values, and the paper's area under the MoRF curve."""
BETA = (0.15, 0.25, 0.35)
"""Of which the paper has no table."""
PUBLISHED = {
    (f"{name} {value:g}", "MoRF"): area
    for name, row in GRID.items()
    for value, area in zip(*row, strict=True)
}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="cifar_cnn")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=50)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    net, x, _ = network(options.network, options.data, options.weights, options.images)
    target = net(x).argmax(-1)

    def scores(net: Any, x: Any, target: Any, moving: dict[str, jax.Array], *, steps: int) -> Any:
        f = lambda x: net(x)
        a = lpr(f, steps=steps, **moving)(x, target)
        return [m(f)(x, target, a).score for m in (metrics.morf, metrics.lerf)]

    @cache
    def program(steps: int, _: str) -> Any:
        return jax.jit(partial(scores, steps=steps))

    @cache
    def run(row: str) -> list[tables.Cell]:
        name, value = row.split(" ")
        steps = int(value) if name == "steps" else 50
        moving = {} if name == "steps" else {name: jnp.float32(value)}
        return [tables.cell(s) for s in program(steps, name)(net, x, target, moving)]

    wanted = [
        (f"{name} {value:g}", column)
        for name, values in ({k: of for k, (of, _) in GRID.items()} | {"beta": BETA}).items()
        for value in values
        for column in ("MoRF", "LeRF")
    ]
    path = options.out / "lpr_grid.csv"
    cells = tables.fill(path, wanted, lambda row, column: run(row)[column == "LeRF"])
    tables.report(path, cells, PUBLISHED)


if __name__ == "__main__":
    main()
