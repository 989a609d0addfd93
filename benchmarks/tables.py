"""A paper's table made again: cells that outlive a stop, beside what the paper reports."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

Key = tuple[str, str]
"""Row and column."""


class Cell(NamedTuple):
    """A mean, its standard error, and of how many numbers."""

    mean: float
    error: float = np.nan
    count: int = 1


Cells = dict[Key, Cell]


def cell(values: Iterable[float]) -> Cell:
    """Average what is finite.

    >>> cell([1.0, 3.0, np.nan])
    Cell(mean=2.0, error=1.0, count=2)
    """
    known = np.array([v for v in values if np.isfinite(v)], float)
    if len(known) == 0:
        return Cell(np.nan, np.nan, 0)
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else np.nan
    return Cell(float(known.mean()), float(error), len(known))


def read(path: Path) -> Cells:
    """Read cells, none if there are none yet."""
    if not path.exists():
        return {}
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {
        (r["row"], r["column"]): Cell(float(r["mean"]), float(r["error"]), int(r["count"]))
        for r in rows
    }


def write(path: Path, cells: Cells) -> None:
    """Write cells as a whole: a reader sees the old file or the new one."""
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "column", *Cell._fields))
        writer.writerows((*key, *value) for key, value in cells.items())
    os.replace(draft, path)


def fill(path: Path, wanted: Iterable[Key], measure: Callable[[str, str], Cell]) -> Cells:
    """Measure the cells that a file does not have, and write each as soon as it is known."""
    cells = read(path)
    todo = [key for key in wanted if key not in cells]
    for key in tqdm(todo, desc=path.stem):
        cells[key] = measure(*key)
        write(path, cells)
    return cells


def over_seeds(cells: Cells) -> Cells:
    """Average cells whose column ends in `, seed N` over the seeds."""
    groups: dict[Key, list[float]] = {}
    for (row, column), value in cells.items():
        groups.setdefault((row, column.partition(", seed ")[0]), []).append(value.mean)
    return {key: cell(values) for key, values in groups.items()}


def markdown(cells: Cells, published: Mapping[Key, float], digits: int = 3) -> str:
    """Write a table, in parentheses what the paper reports of other data or networks.

    >>> print(markdown({("lpr", "AUC"): Cell(0.25)}, {("lpr", "AUC"): 0.2}, 2))
    | | AUC |
    |---|---:|
    | lpr | 0.25 (0.20) |
    """
    rows, columns = _ordered(cells, published)
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in rows:
        texts = []
        for column in columns:
            ours, theirs = cells.get((row, column)), published.get((row, column))
            known = ours is not None and np.isfinite(ours.mean)
            text = f"{ours.mean:.{digits}f}" if known else ""
            if ours is not None and np.isfinite(ours.error):
                text += f" ± {ours.error:.{digits}f}"
            texts.append(text + ("" if theirs is None else f" ({theirs:.{digits}f})"))
        lines.append(f"| {row} | {' | '.join(t.strip() for t in texts)} |")
    return "\n".join(lines)


def draw(cells: Cells, published: Mapping[Key, float]) -> Figure:
    """Draw a panel for each column: ours as dots with errors, the paper's as circles."""
    rows, columns = _ordered(cells, published)
    wide = min(6, len(columns))
    high = -(-len(columns) // wide)
    size = (1.5 + 2.4 * wide, high * (1 + 0.25 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(high, wide, sharey=True, squeeze=False).ravel()
    for panel, column in zip(panels, columns, strict=False):
        for at, row in enumerate(rows):
            if ours := cells.get((row, column)):
                error = ours.error if np.isfinite(ours.error) else 0
                panel.errorbar(ours.mean, at, xerr=error, fmt="o", color="#2f6f9f", markersize=4)
            if (theirs := published.get((row, column))) is not None:
                panel.plot(theirs, at, "o", color="#c60", fillstyle="none", markersize=6)
        panel.set_title(column, fontsize=9)
        panel.set_yticks(range(len(rows)), rows, fontsize=8)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.grid(color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    return figure


def report(path: Path, cells: Cells, published: Mapping[Key, float], digits: int = 3) -> None:
    """Print a table, and write it as `path` with the endings `.md` and `.png`."""
    text = markdown(cells, published, digits)
    print(f"Ours, in parentheses the paper's:\n\n{text}")
    path.with_suffix(".md").write_text(text + "\n")
    draw(cells, published).savefig(path.with_suffix(".png"), dpi=120)


def _ordered(*tables: Mapping[Key, object]) -> tuple[Sequence[str], Sequence[str]]:
    keys = [key for table in tables for key in table]
    return list(dict.fromkeys(r for r, _ in keys)), list(dict.fromkeys(c for _, c in keys))
