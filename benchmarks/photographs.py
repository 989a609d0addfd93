"""Every method by every metric that asks for no boxes, on photographs, in one table.

    python benchmarks/photographs.py DATA OUT [--images 200] [--methods saliency,grad_cam]

EfficientNet-Lite0 on photographs of ImageNet (DATA/photos), every k-th of them; the class explained
is the predicted one. Each image's scores go to OUT/METHOD.csv after every batch: a run that was
stopped goes on where it stood, one with more methods computes only those. At the end OUT/table.md
and OUT/table.png hold the means over the images that have a score, with their standard errors:

    insertion, deletion    16 steps, channels summed, probability (higher / lower is better)
    MoRF, LeRF             5 % of the pixels in 5 steps, logit (lower / higher is better)
    border                 share of the attribution in the 16 pixels along the border (IBD); its
                           ROC AUC as a sign of a wrong prediction, after the half with the smaller
                           share is left out
    infidelity             10 squares of 32 x 32 pixels set to zero, the map's best multiple,
                           maps that are gradients multiplied by the image (lower)
    random layer           Spearman's correlation of magnitudes, and SSIM of magnitudes in [0, 1],
                           with the map of the model whose last layer is random (lower)
    max-sensitivity        3 draws, first images only (lower)

Methods of many steps or samples take fewer than by default: see `FEWER`.
"""

import csv
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import photographs
from flax import nnx
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxattr
from jaxattr import catalogue, maps, metrics
from jaxattr.models import load

FEWER: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 20},
    "smooth": {"samples": 20},
    "smooth_squared": {"samples": 20},
    "variance": {"samples": 20},
    "dmbp": {"steps": 10},
    "lpr": {"steps": 20},
}
GRADIENTS = {"saliency", "guided_backprop", "deconvnet", "smooth", "smooth_squared", "variance"}
STEP = 224 * 224 // 16
CHECKED = 16
"""Images on which max-sensitivity is measured."""

COLUMNS = ("insertion", "deletion", "MoRF", "LeRF", "infidelity", "max-sensitivity")
COLUMNS += ("random layer: ranks", "random layer: SSIM", "border")

Scores = dict[str, jax.Array]
Rows = list[dict[str, float]]


def attribution(name: str, net: Callable) -> jaxattr.Attribution:
    return catalogue.build(catalogue.find(name), lambda x: net(x), **FEWER.get(name, {}))


def scores(
    name: str, net: Callable, random: Callable, x: jax.Array, target: jax.Array, key: jax.Array
) -> Scores:
    """Measure a method on a batch by all but max-sensitivity, `(B,)` each."""
    f = lambda x: net(x)
    a = attribution(name, net)(x, target, key=key)
    other = attribution(name, random)(x, target, key=key)
    kept = lambda m: f(jnp.tile(x, (len(m) // len(x), 1, 1, 1)) * m)
    squares = metrics.infidelity(kept, perturb=metrics.square(size=32), rescale=True)
    share = a * x if name in GRADIENTS else a
    found = {
        "insertion": metrics.insertion(f, step=STEP)(x, target, a),
        "deletion": metrics.deletion(f, step=STEP)(x, target, a),
        "MoRF": metrics.morf(f, steps=5)(x, target, a),
        "LeRF": metrics.lerf(f, steps=5)(x, target, a),
        "border": metrics.boundary_dependency(a),
        "infidelity": squares(jnp.ones_like(x), target, share, key=key),
        "random layer: ranks": metrics.rank_correlation(a, other, reduce=metrics.magnitude_sum),
        "random layer: SSIM": metrics.ssim(_magnitudes(a), _magnitudes(other)),
    }
    return {k: v.score for k, v in found.items()}


def sensitivity(
    name: str, net: Callable, random: Callable, x: jax.Array, target: jax.Array, key: jax.Array
) -> Scores:
    """Measure a method on a batch by max-sensitivity, `(B,)`."""
    measure = metrics.max_sensitivity(attribution(name, net), samples=3)
    return {"max-sensitivity": measure(x, target, key=key).score}


def _magnitudes(a: jax.Array) -> jax.Array:
    return maps.unit_range(jnp.abs(a).sum(-1, keepdims=True))


def batches(data: Path, images: int, size: int, preprocess: Callable) -> Iterator[tuple]:
    """Yield stacks of every k-th photograph with their true classes."""
    chosen = islice(photographs(data), 0, 700 // images * images, 700 // images)
    while group := list(islice(chosen, size)):
        yield np.stack([preprocess(image) for image, _ in group]), np.array([c for _, c in group])


def read(path: Path) -> Rows:
    """Read the rows of a method, none if there are none yet."""
    if not path.exists():
        return []
    with path.open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write(path: Path, rows: Rows) -> None:
    """Write rows as a whole: a reader sees the old file or the new one."""
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, path)


def measure(name: str, path: Path, options: Any) -> Rows:
    """Measure one method on all photographs, from where the last run stopped."""
    rows = read(path)
    net, preprocess, _ = load("efficientnet_lite0")
    graph, parameters, rest = nnx.split(net, nnx.Param, ...)
    key = jax.random.key(0)
    blank = metrics.randomize_parameters(parameters, ["fc"], key=key)
    random = nnx.merge(graph, blank, rest)
    forward, programs = jax.jit(lambda net, x: net(x)), {}
    done = 0
    with tqdm(total=options.images, desc=name, initial=len(rows)) as bar:
        for x, label in batches(options.data, options.images, options.batch, preprocess):
            done += len(x)
            if done <= len(rows):
                continue
            target = forward(net, x).argmax(-1)
            found: Scores = {"right": jnp.equal(target, label)}
            for kind in (scores, sensitivity) if done <= CHECKED else (scores,):
                run = programs.setdefault(kind, jax.jit(partial(kind, name)))
                found |= run(net, random, x, target, key)
            found.setdefault("max-sensitivity", jnp.full(len(x), jnp.nan))
            columns = {k: np.asarray(v, float) for k, v in found.items()}
            rows += [{k: v[i] for k, v in columns.items()} for i in range(len(x))]
            write(path, rows)
            bar.update(len(x))
    return rows[: options.images]


def summary(rows: Rows) -> dict[str, tuple[float, float]]:
    """Return means and standard errors, and the ROC AUC of the border."""
    table = {k: np.array([row[k] for row in rows]) for k in ("right", *COLUMNS)}
    right = table.pop("right").astype(bool)
    found = {}
    for name, values in table.items():
        valid = values[np.isfinite(values)]
        found[name] = (
            (valid.mean(), valid.std() / np.sqrt(len(valid))) if len(valid) else (np.nan, 0.0)
        )
    border = jnp.asarray(table["border"])
    kept = metrics.upper_half(border, jnp.isfinite(border))
    auc = metrics.roc_auc(border, jnp.asarray(~right), kept)
    return found | {"border: AUC": (float(auc), 0.0)}


def draw(table: dict[str, dict[str, tuple[float, float]]]) -> Figure:
    """Draw one panel of bars for each metric."""
    columns = list(next(iter(table.values())))
    figure = Figure(figsize=(16, 1.5 + 0.4 * len(table)), layout="constrained")
    panels = figure.subplots(2, -(-len(columns) // 2), sharey=True).ravel()
    for panel, column in zip(panels, columns, strict=False):
        means, errors = zip(*(row[column] for row in table.values()), strict=True)
        panel.barh(list(table), means, xerr=errors, color="#3f8ec0", ecolor="0.3")
        panel.set_title(column, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    return figure


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", help="names with commas between them; by default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = options.methods.split(",") if options.methods else list(catalogue.METHODS)
    for name in chosen:
        measure(name, options.out / f"{name}.csv", options)
    table = {
        name: summary(rows)
        for name in catalogue.METHODS
        if len(rows := read(options.out / f"{name}.csv")[: options.images]) == options.images
    }
    columns = list(next(iter(table.values())))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, row in table.items():
        lines.append(f"| `{name}` | {' | '.join(f'{mean:.3f}' for mean, _ in row.values())} |")
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(table).savefig(options.out / "table.png", dpi=120)


if __name__ == "__main__":
    main()
