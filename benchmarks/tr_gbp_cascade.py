"""TR-GBP's Figs. 5, 9 and 10: what becomes of each layer's map as layers are made random?

    python benchmarks/tr_gbp_cascade.py DATA OUT [--network cifar_resnet20] [--images 64]

The layers of a CIFAR-10 ResNet are made random one after another, from the last down, as by
`sanity.py`; the class explained is the one that the trained network predicts. Section 4.2 of the
paper predicts that the biases' maps become even, with weak borders, once the layers above are
random, and that maps of lower layers are noisier. OUT/cascade.csv and .md have, of the image's part
`R^0` and of some layers' `R^l`, at the layer's own resolution,

    variation    deviation over mean, of the pixels inside: less is more even
    border       mean of the outermost pixels over the mean inside: less than 1 is weaker

as means over the images; OUT/cascade.png shows the first image's maps.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tables
from matplotlib.figure import Figure
from sanity import forgetful
from tqdm import tqdm

from jaxattr import tr_gbp_details, viz

SHOWN = 5
"""Layers of which maps are taken, and stages besides the trained network."""


def layers(net: Any, x: np.ndarray, target: jax.Array) -> dict[str, np.ndarray]:
    """Return the target's maps before classes are compared, `(B, h, w)`, the image's first."""
    found = jax.jit(lambda net, x, t: tr_gbp_details(lambda x: net(x))(x, t))(net, x, target)
    names = spread(list(found.biases))
    maps = {name: found.biases[name].map for name in names}
    return {
        "image": np.asarray(found.input[:, 0, :, :, 0]),
        **{name: np.asarray(a[:, 0, :, :, 0]) for name, a in maps.items()},
    }


def spread(items: list) -> list:
    """Take a few items, the first and the last among them."""
    at = np.linspace(0, len(items) - 1, min(SHOWN, len(items))).round().astype(int)
    return [items[i] for i in at]


def evenness(a: np.ndarray) -> dict[str, tables.Cell]:
    """Measure how even maps `(B, h, w)` are, and how weak at the border."""
    inner = a[:, 1:-1, 1:-1]
    mean = inner.mean((1, 2))
    ring = (a.sum((1, 2)) - inner.sum((1, 2))) / (a[0].size - inner[0].size)
    size = np.abs(mean)
    return {
        "variation": tables.Cell(float(np.median(inner.std((1, 2)) / size)), count=len(a)),
        "border": tables.Cell(float(np.median(ring / mean)), count=len(a)),
    }


def draw(found: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Draw the first image's maps: a row for each layer, a column for each stage."""
    names = list(next(iter(found.values())))
    size = (1.4 * len(found), 1.5 * len(names))
    figure = Figure(figsize=size, layout="compressed", dpi=130)
    axes = figure.subplots(len(names), len(found), squeeze=False)
    for column, (stage, maps) in zip(axes.T, found.items(), strict=True):
        column[0].set_title(stage, fontsize=7)
        for ax, name in zip(column, names, strict=True):
            ax.imshow(viz.scale(maps[name][0]).to_rgba(maps[name][0]))
            ax.set(xticks=[], yticks=[])
            ax.set_ylabel(name if ax.get_subplotspec().is_first_col() else "", fontsize=6)
    return figure


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    nets = forgetful(options.data, options.network, options.images)
    target = nets.trained(nets.x).argmax(-1)
    stages = {"raw": nets.trained}
    stages |= {f"{i + 1} random": nets.stages[i] for i in spread(list(range(len(nets.stages))))}
    found = {k: layers(net, nets.x, target) for k, net in tqdm(stages.items(), desc="stages")}
    cells = {
        (f"{name}, {measure}", stage): cell
        for stage, maps in found.items()
        for name, a in maps.items()
        for measure, cell in evenness(a).items()
    }
    tables.write(options.out / "cascade.csv", cells)
    text = tables.markdown(cells, {}, digits=2)
    print(text)
    (options.out / "cascade.md").write_text(text + "\n")
    draw(found).savefig(options.out / "cascade.png")


if __name__ == "__main__":
    main()
