"""Scores as tables: a row an image, method and metric; means; methods side by side."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxattr.runner.store import open_store


class Row(NamedTuple):
    """The score of a map, None where it has none."""

    example: int
    image: str | None
    target: int
    method: str
    metric: str
    score: float | None


class MeanRow(NamedTuple):
    """The scores of a method by a metric.

    Attributes:
        method: that was measured.
        metric: by which.
        mean: of the images that have a score.
        standard_error: of the mean: the standard deviation over the root of `number`.
        class_mean: the mean over the classes of the means of each, as pointing games are reported.
        number: how many images have a score.
    """

    method: str
    metric: str
    mean: float
    standard_error: float
    class_mean: float
    number: int


class Comparison(NamedTuple):
    """Two methods by a metric, on the images where both have a score.

    Attributes:
        metric: by which.
        first: a method, and `second` another.
        difference: the mean of the first's score less the second's.
        standard_error: of that mean.
        first_higher: the share of images on which the first is higher, ties half.
        number: of images.
    """

    metric: str
    first: str
    second: str
    difference: float
    standard_error: float
    first_higher: float
    number: int


def means(rows: Sequence[Row]) -> list[MeanRow]:
    """Average each method by each metric.

    >>> scores = enumerate([1.0, None, 0.0])
    >>> (row,) = means([Row(i, "a", 0, "lrp", "insertion", s) for i, s in scores])
    >>> row.mean, row.standard_error, row.number
    (0.5, 0.5, 2)
    """
    found = []
    for (metric, method), group in _grouped(rows, "metric", "method").items():
        known = [r for r in group if r.score is not None]
        values = _scores(known)
        each = [_scores(g).mean() for g in _grouped(known, "target").values()]
        middle, error = _mean(values)
        found.append(MeanRow(method, metric, middle, error, _mean(np.array(each))[0], len(values)))
    return found


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Compare all pairs of methods, image by image."""
    found = []
    for (metric,), group in _grouped(rows, "metric").items():
        scores = {
            method: {r.example: r.score for r in of_method if r.score is not None}
            for (method,), of_method in _grouped(group, "method").items()
        }
        for first, second in combinations(scores, 2):
            both = scores[first].keys() & scores[second].keys()
            apart = np.array([scores[first][i] - scores[second][i] for i in sorted(both)], float)
            middle, error = _mean(apart)
            higher = float(((np.sign(apart) + 1) / 2).mean()) if len(apart) else math.nan
            found.append(Comparison(metric, first, second, middle, error, higher, len(apart)))
    return found


def write_tables(out: str | Path, rows: Sequence[Row]) -> None:
    """Write `scores.csv`, `means.csv`, `comparisons.csv`, and `scores.parquet` with pyarrow."""
    store = open_store(out)
    tables = {"scores": rows, "means": means(rows), "comparisons": comparisons(rows)}
    for name, table in tables.items():
        store.documents.write(f"{name}.csv", _csv(table).encode()).result()
    if find_spec("pyarrow") is not None:
        import pyarrow
        import pyarrow.parquet as parquet

        stream = io.BytesIO()
        columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True)) if rows else {}
        parquet.write_table(pyarrow.table({k: list(v) for k, v in columns.items()}), stream)
        store.documents.write("scores.parquet", stream.getvalue()).result()


def _csv(rows: Iterable[Any]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for i, row in enumerate(rows):
        if i == 0:
            writer.writerow(row._fields)
        writer.writerow("" if v is None else v for v in row)
    return stream.getvalue()


def _grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, n) for n in names), []).append(row)
    return found


def _scores(rows: Iterable[Row]) -> np.ndarray:
    return np.array([row.score for row in rows], float)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Return a mean and its standard error, NaN of too few values."""
    if not len(values):
        return math.nan, math.nan
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
