"""Many methods by many metrics: with which options, scores that outlive a crash, table and plot."""

import csv
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from readings import GRADIENTS
from tqdm import tqdm

import jaxattr
from jaxattr import catalogue
from jaxattr.deprecated import RENAMED

FEWER: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 20},
    "blur_integrated_gradients": {"steps": 20},
    "guided_integrated_gradients": {"steps": 40},
    "xrai": {"steps": 10},
    "gradient_shap": {"samples": 20},
    "ablation_cam": {"layer": "blocks.14", "chunk": 1},
    "score_cam": {"layer": "blocks.14", "chunk": 1},
    "cameras": {"scales": (1.0, 1.5, 2.0), "chunk": 1},
    "occlusion": {"window": 32, "stride": 32, "chunk": 1},
    "feature_ablation": {"chunk": 1},
    "hsic_attribution": {"samples": 200, "chunk": 1},
    "kernel_shap": {"samples": 200, "chunk": 1},
    "lime": {"samples": 200, "chunk": 1},
    "rise": {"samples": 200, "chunk": 1},
    "shapley_sampling": {"samples": 4, "chunk": 1},
    "sobol_attribution": {"samples": 8, "cells": 5, "chunk": 1},
    "meaningful_perturbation": {"steps": 40},
    "extremal_perturbation": {"steps": 40, "areas": (0.1,)},
    "dmbp": {"steps": 10},
    "lpr": {"steps": 15},
    "smoothgrad": {"samples": 20},
    "smoothgrad_squared": {"samples": 20},
    "vargrad": {"samples": 20},
}
"""Options of methods of many passes, fewer than by default; layers are EfficientNet-Lite0's."""

Scores = dict[str, jax.Array]
Rows = list[dict[str, float]]
Summary = dict[str, tuple[float, float]]
"""Of each column the mean and its standard error."""


def random(x: jax.Array, target: jax.Array, *, key: Any = None) -> jax.Array:
    """Attribute at random: what a method must be better than."""
    return jax.random.normal(key, (*x.shape[:3], 1))


def center(x: jax.Array, target: jax.Array, *, key: Any = None) -> jax.Array:
    """Attribute to a pixel how near it is to the image's center."""
    rows, columns = (jnp.linspace(-1, 1, n) for n in x.shape[1:3])
    far = jnp.hypot(rows[:, None], columns) / jnp.sqrt(2)
    return jnp.broadcast_to(1 - far[:, :, None], (*x.shape[:3], 1))


CONTROLS = {"random": random, "center": center}
VARIANTS: dict[str, tuple[str, Callable[[jax.Array, jax.Array], jax.Array]]] = {
    variant: (name, read)
    for name in GRADIENTS
    for variant, read in (
        (f"{name} x image", lambda a, x: a * x),
        (f"magnitudes of {name}", lambda a, x: jnp.abs(a)),
    )
}
"""Other readings of the gradient methods, before channels are summed: DMBP's, and LPR's of one."""
NAMES = (*CONTROLS, *catalogue.METHODS, *VARIANTS)


def attribution(name: str, net: Callable) -> jaxattr.Attribution:
    """Make the method of this name, for `net`."""
    if name in CONTROLS:
        return CONTROLS[name]
    if name in VARIANTS:
        inner, read = VARIANTS[name]
        explain = attribution(inner, net)
        return lambda x, target, *, key=None: read(explain(x, target, key=key), x)
    return catalogue.build(catalogue.find(name), lambda x: net(x), **FEWER.get(name, {}))


@partial(jax.jit, static_argnames="name")
def explain(name: str, net: Callable, x: jax.Array, target: jax.Array, key: jax.Array) -> jax.Array:
    """Explain a batch."""
    return attribution(name, net)(x, target, key=key)


def parser(description: str) -> ArgumentParser:
    """Return the options that all tables have."""
    found = ArgumentParser(description=description.splitlines()[0])
    found.add_argument("data", type=Path)
    found.add_argument("out", type=Path)
    found.add_argument("--images", type=int, default=200)
    found.add_argument("--batch", type=int, default=4)
    found.add_argument("--chunk", type=int, default=1, help="steps of an image at once")
    found.add_argument("--methods", help="names with commas between them; by default all")
    return found


def read(path: Path) -> Rows:
    """Read the rows of a method, none if there are none yet."""
    if not path.exists():
        return []
    with path.open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def current(name: str) -> str:
    """Return the present name of a method that had another one, and any other name as it is.

    >>> current("smooth"), current("saliency")
    ('smoothgrad', 'saliency')
    """
    return RENAMED.get(f"jaxattr.{name}", name).removeprefix("jaxattr.")


def results(folder: Path, name: str) -> Path:
    """Return the file of a method, which may still have the method's earlier name."""
    path = folder / f"{name}.csv"
    earlier = [p for p in sorted(folder.glob("*.csv")) if current(p.stem) == name]
    return earlier[0] if earlier and not path.exists() else path


def write(path: Path, rows: Rows) -> None:
    """Write rows as a whole: a reader sees the old file or the new one."""
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, path)


def measure(
    path: Path, batches: Iterable[Any], scores: Callable[[int, Any], Scores], total: int
) -> Rows:
    """Measure batch after batch, from where the last run stopped.

    Args:
        path: the method's file.
        batches: what to explain.
        scores: from the number of the first row of a batch, and the batch, to columns of scores.
        total: the number of rows; more are cut off.
    """
    rows = read(path)
    start = 0
    with tqdm(total=total, desc=path.stem, initial=len(rows)) as bar:
        for batch in batches:
            end = min(start + len(batch[0]), total)
            if end > len(rows):
                columns = {k: np.asarray(v, float) for k, v in scores(start, batch).items()}
                lines = zip(*columns.values(), strict=True)
                rows[start:] = [dict(zip(columns, line, strict=True)) for line in lines]
                del rows[total:]
                write(path, rows)
                bar.update(end - bar.n)
            start = end
    return rows


def means(rows: Rows, columns: Sequence[str]) -> Summary:
    """Average what is finite."""
    found = {}
    for name in columns:
        values = np.array([row[name] for row in rows])
        values = values[np.isfinite(values)]
        size = max(len(values), 1)
        mean = values.mean() if len(values) else np.nan
        found[name] = (float(mean), float(np.std(values) / np.sqrt(size)) if len(values) else 0.0)
    return found


def run(options: Any, one: Callable[[str, Path], Rows], summary: Callable[[Rows], Summary]) -> None:
    """Measure the chosen methods, then write what is complete of all as `table.md` and `.png`."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.methods.split(",") if options.methods else NAMES:
        one(name, results(options.out, name))
    files = {name: read(results(options.out, name)) for name in NAMES}
    longest = max(map(len, files.values()))
    table = {name: summary(rows) for name, rows in files.items() if len(rows) == longest}
    columns = list(next(iter(table.values())))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, row in table.items():
        lines.append(f"| `{name}` | {' | '.join(f'{mean:.3g}' for mean, _ in row.values())} |")
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(table).savefig(options.out / "table.png", dpi=120)


def draw(table: dict[str, Summary]) -> Figure:
    """Draw a panel for each metric: means with their standard errors."""
    columns = list(next(iter(table.values())))
    figure = Figure(figsize=(16, 2 + 0.4 * len(table)), layout="constrained")
    panels = figure.subplots(2, -(-len(columns) // 2), sharey=True).ravel()
    for panel, column in zip(panels, columns, strict=False):
        values, errors = np.array([row[column] for row in table.values()]).T
        panel.errorbar(values, list(table), xerr=errors, fmt="o", markersize=5, color="#2f6f9f")
        if np.nanmax(values) > 100 * np.nanmedian(values) > 0:
            panel.set_xscale("log")
        panel.set_title(column, fontsize=10)
        panel.grid(color="0.92")
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(length=0)
    panels[0].set_ylim(len(table) - 0.4, -0.6)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    return figure
