"""Does a method's map change when layers of the model are randomized?

    python benchmarks/sanity.py DATA OUT [--images 64] [--methods guided_backprop,dmbp]

Sanity checks of Adebayo et al. (NeurIPS 2018) on the CIFAR-10 ResNet-20 and -32 of DATA: layers are
made random one after another, from the last down, each with its own mean and deviation, and the
map of each stage is compared with that of the trained model: Spearman's correlation of the pixels,
signs counting and not, and SSIM of the magnitudes, each scaled to [0, 1]. A method that depends on
the model has a curve that falls; guided backpropagation's stays up until the first layers.

Then the protocol of DMBP's Table 3: only the last layer is drawn anew, from a normal distribution,
and the maps of the predicted class are correlated (Spearman).

Means over test images. OUT/NETWORK.METHOD.csv holds a row for each stage and two for Table 3; what
is there is not measured again, and several processes may share the methods (`--methods`).
OUT/curves.png is a picture of what is complete. `docs/metrics.md` has both.
"""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import sample
from flax import nnx
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scoreboard import explain, read, write
from tqdm import tqdm

from jaxattr import metrics
from jaxattr.image import maps

NETWORKS = ("cifar_resnet20", "cifar_resnet32")
METHODS = ("saliency", "input_x_gradient", "guided_backprop", "guided_grad_cam", "grad_cam")
METHODS += ("lrp", "dmbp", "lpr", "tr_gbp", "rsp", "excitation_backprop")
SCORES = ("rank correlation", "of magnitudes", "SSIM")


def order(parameters: Any) -> list[str]:
    """Return the layers, the last first: whole residual blocks, the stem and the classifier."""
    paths = jax.tree.leaves_with_path(parameters)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    blocks = {".".join(n.split(".")[: 2 if n.startswith("layer") else 1]) for n in names}
    last = sorted(blocks - {"conv1", "bn1"} - {b for b in blocks if b.startswith("layer")})
    middle = sorted((b for b in blocks if b.startswith("layer")), reverse=True, key=_numbers)
    return [*last, *middle, "bn1", "conv1"]


def _numbers(block: str) -> list[int]:
    return [int(part) for part in block.removeprefix("layer").split(".")]


def forget(net: Callable, layers: Sequence[str], initializer: Any = None) -> Callable:
    """Return a network with some of its layers made random."""
    graph, parameters, rest = nnx.split(net, nnx.Param, ...)
    key = jax.random.key(0)
    parameters = metrics.randomize_parameters(parameters, layers, key=key, initializer=initializer)
    return nnx.merge(graph, parameters, rest)


def compare(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the three similarities of maps, `(3, B)`."""
    size = lambda m: maps.unit_range(jnp.abs(m).sum(-1, keepdims=True))
    signed = metrics.rank_correlation(a, b)
    unsigned = metrics.rank_correlation(a, b, reduce=metrics.magnitude_sum)
    return jnp.stack([signed.score, unsigned.score, metrics.ssim(size(a), size(b)).score])


class Forgetful(NamedTuple):
    """A network, and what becomes of it.

    Attributes:
        trained: as it was.
        stages: with its layers random down to each of them.
        anew: with a normal last layer.
        x: test images, `(B, H, W, 3)`.
    """

    trained: Callable
    stages: list[Callable]
    anew: Callable
    x: np.ndarray


def forgetful(data: Path, network: str, images: int) -> Forgetful:
    """Load a network and make its layers random, one after another."""
    (net, _, _), x, _ = sample(data, network, images)
    layers = order(nnx.state(net, nnx.Param))
    stages = [forget(net, layers[: n + 1]) for n in range(len(layers))]
    return Forgetful(net, stages, forget(net, layers[:1], metrics.normal(std=0.01)), x)


def similarities(name: str, nets: Forgetful) -> np.ndarray:
    """Return the mean similarities of all stages, and of Table 3's two, `(stages + 2, 3)`."""
    trained, stages, anew, x = nets
    target, key = trained(x).argmax(-1), jax.random.key(0)
    similar = partial(compare, explain(name, trained, x, target, key))
    cases = [(stage, target) for stage in (*stages, anew)] + [(anew, anew(x).argmax(-1))]
    bar = tqdm(cases, desc=name, leave=False)
    found = [similar(explain(name, net, x, target, key)) for net, target in bar]
    return np.stack([np.nanmean(values, 1) for values in found])


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for network in options.networks.split(","):
        nets = forgetful(options.data, network, options.images)
        for name in options.methods.split(","):
            path = options.out / f"{network}.{name}.csv"
            if not path.exists():
                found = similarities(name, nets).tolist()
                write(path, [dict(zip(SCORES, row, strict=True)) for row in found])
    curves = {
        (network, name): np.array([list(row.values()) for row in rows])
        for network in NETWORKS
        for name in METHODS
        if (rows := read(options.out / f"{network}.{name}.csv"))
    }
    draw(curves).savefig(options.out / "curves.png", dpi=120)
    print("| | | classifier | half | all | Table 3, same class | predicted class |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (network, name), found in curves.items():
        stages, drawn = found[:-2, 1], found[-2:, 0]
        cells = [f"{v:.2f}" for v in (*stages[[0, len(stages) // 2, -1]], *drawn)]
        print(f"| {network} | `{name}` | {' | '.join(cells)} |")


def draw(curves: dict[tuple[str, str], np.ndarray]) -> Figure:
    """Draw a panel for each network and score."""
    networks = list(dict.fromkeys(network for network, _ in curves))
    figure = Figure(figsize=(15, 4.2 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), len(SCORES), sharey=True, squeeze=False)
    for row, network in zip(panels, networks, strict=True):
        for i, panel in enumerate(row):
            panel.set_title(f"{network}: {SCORES[i]}", fontsize=10)
            panel.set_prop_cycle(color=[*colormaps["tab10"].colors, "black"])
            for (owner, name), found in curves.items():
                if owner == network:
                    panel.plot([1, *found[:-2, i]], label=name, marker=".", linewidth=1.2)
            panel.axhline(0, color="0.8", linewidth=0.8, zorder=0)
            panel.set_xlabel("layers made random, from the last down")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right", frameon=False)
    return figure


if __name__ == "__main__":
    main()
