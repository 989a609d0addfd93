"""Metrics of stored maps, image by image, and go on after a stop."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxattr import metrics
from jaxattr.data import Source, batches
from jaxattr.data.reading import shard as part_of
from jaxattr.runner.devices import part
from jaxattr.runner.jobs import hash_of
from jaxattr.runner.measuring import METRICS, filled, program, truth_of
from jaxattr.runner.store import Store, array_name, differences, open_store
from jaxattr.runner.tables import Row, write_tables
from jaxattr.types import Array


def evaluate(
    out: str | Path,
    source: Source,
    model: Callable[[Array], Array],
    preprocess: Any,
    measures: Mapping[str, Mapping[str, Any]],
    *,
    shard: str | None = None,
    threads: int = 2,
    progress: bool = True,
) -> list[Row]:
    """Measure the maps of a run.

    Metrics of ground truth are taken in the photograph's own pixels, in the part of it that the
    input shows (`Geometry.visible`), for the class that was explained: its segmentation, else its
    boxes. An image without ground truth, without a map, or that could not be read has no score.

    Scores lie beside the maps, in a document a batch and metric, and so do sums of curves: what was
    measured is not measured again. At the end `scores.csv` (a row an image, method and metric), the
    same as `.parquet` where pyarrow is installed, `means.csv` and `comparisons.csv` are written.

    Args:
        out: what `explain` wrote.
        source: the data set that was explained.
        model: the network that was explained.
        preprocess: what made its inputs, with `geometry`.
        measures: metrics by name, of `METRICS`, each with its options.
        shard: "i/n" for one of n independent processes, as for `explain`. Tables are written by
            the one that finds all scores there.
        threads: how many images are read at once.
        progress: whether to show a bar.

    Returns:
        The rows of `scores.csv` that are known so far.

    Raises:
        ValueError: if the weights are others than those of the run, there is no such metric, it was
            taken with other options, or the maps do not keep what it needs.
        FileNotFoundError: if the run is not there, or not done.
    """
    store = open_store(out)
    job = finished(store, out)
    if "infidelity" in measures and not job["channels"]:
        raise ValueError(
            f"infidelity needs each channel's share, but {out} keeps their sum: explain with "
            "`channels`"
        )
    if hash_of(model) != job["sha256_of_weights"]:
        raise ValueError(f"{out} was explained with other weights than those that measure it now")
    _claim(store, measures)
    places = store.open_array("target").read().result()
    pairs = positions(store, source, len(places))
    count = math.ceil(len(pairs) / job["batch"])
    mine = part_of(count, *part(shard))
    missing = {
        name: set(mine) - {int(d[:6]) for d in store.names(f"scores/{name}") if d[0].isdecimal()}
        for name in measures
    }
    todo = sorted(set().union(*missing.values()))
    alone = getattr(model, "multi_label", False) or len(job["classes"]) == 1
    programs = {n: program(n, dict(options), model, alone) for n, options in measures.items()}
    size = job["batch"]
    wanted = {b: pairs[b * size : (b + 1) * size] for b in todo}
    indices = np.concatenate(list(wanted.values())) if wanted else np.zeros(0, int)
    read = batches(source, preprocess, size=size, indices=indices, threads=threads)
    maps = {m: store.open_array(f"maps/{array_name(m)}") for m in job["methods"]}
    with tqdm(total=len(todo), unit="batch", disable=not progress) as bar:
        for b, batch in zip(todo, read, strict=True):
            part_of_run = slice(b * size, b * size + len(wanted[b]))
            lost = [f.position for f in batch.failures]
            slots = np.flatnonzero(~np.isin(wanted[b], lost))
            target = places[part_of_run][slots]
            explained = {m: a[part_of_run].read().result()[slots] for m, a in maps.items()}
            truth = truth_of(batch.records, target, preprocess)
            for name in (n for n in measures if b in missing[n]):
                found, curves = {}, {}
                for method, a in explained.items():
                    scores = np.full(len(wanted[b]), np.nan)
                    given = batch.inputs, target, a.astype(np.float32), truth
                    if len(slots):
                        measured = programs[name](*filled(given, size))
                        scores[slots] = measured.score[: len(slots)]
                        if measured.curve is not None:
                            curves[method] = _total(measured.curve[: len(slots)])
                    found[method] = [None if math.isnan(s) else float(s) for s in scores]
                store.write(f"curves/{name}/{b:06}.json", curves)
                store.write(f"scores/{name}/{b:06}.json", found)
            bar.update()
    rows = stored_rows(store, job, list(measures), places)
    if len(rows) == len(places) * len(job["methods"]) * len(measures):
        write_tables(out, rows)
    return rows


def finished(store: Store, out: str | Path) -> dict[str, Any]:
    """Return the configuration of a run that is done.

    Raises:
        FileNotFoundError: if it is not there, or not done.
    """
    group = store.read("zarr.json")
    if group is None:
        raise FileNotFoundError(f"{out} holds no run: `jaxattr run` makes one")
    if "ids" not in group["attributes"]:
        raise FileNotFoundError(
            f"the run in {out} is not done: the command that began it goes on with it"
        )
    return group["attributes"]


def _total(curve: np.ndarray) -> dict[str, Any]:
    """Return the sum of the curves of a batch, of those that have one, and how many these are."""
    known = curve[np.isfinite(curve).all(1)]
    return {"sum": known.sum(0, dtype=float).tolist(), "number": len(known)}


def mean_curves(store: Store, name: str) -> dict[str, list[float]]:
    """Return the mean curve of each method by a metric, of the images that have one."""
    sums: dict[str, Any] = {}
    for document in store.names(f"curves/{name}"):
        for method, found in store.read(f"curves/{name}/{document}").items():
            total, number = sums.get(method, (0, 0))
            sums[method] = total + np.array(found["sum"]), number + found["number"]
    return {method: (total / n).tolist() for method, (total, n) in sums.items() if n}


def _claim(store: Store, measures: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the options of each metric, or see that they are those of before."""
    if not measures:
        raise ValueError(f"no metric is named; there are {', '.join(METRICS)}")
    for name, options in measures.items():
        if name not in METRICS:
            raise ValueError(
                f"there is no metric {name!r} of stored maps; give {', '.join(METRICS)}"
            )
        known = inspect.signature(getattr(metrics, name)).parameters.values()
        keyword = [p.name for p in known if p.kind is p.KEYWORD_ONLY]
        if strange := [option for option in options if option not in keyword]:
            raise ValueError(f"{name} has no option {strange[0]!r}; it has {', '.join(keyword)}")
        place = f"scores/{name}/options.json"
        before = store.read(place)
        if before is None:
            store.write(place, dict(options))
        elif differing := differences(before, options):
            raise ValueError(
                f"{name} was measured with other options ({'; '.join(differing)}); remove "
                f"{store.url}scores/{name} to measure it anew"
            )


def positions(store: Store, source: Source, length: int) -> np.ndarray:
    """Return the position in the source of each example.

    Raises:
        ValueError: if the source is smaller than the one that was explained.
    """
    found = store.read("examples.json")
    positions = np.arange(length) if found is None else np.array(found, int)[:length, 0]
    if len(positions) and positions.max() >= len(source):
        raise ValueError(
            f"the run explained {length} examples of a larger data set than {source.name}, which "
            f"has {len(source)} records"
        )
    return positions


def stored_rows(
    store: Store, job: Mapping[str, Any], names: Sequence[str], target: np.ndarray
) -> list[Row]:
    """Return the scores that are known so far, an example after the other."""
    rows = []
    for name in names:
        for b in range(math.ceil(len(target) / job["batch"])):
            found = store.read(f"scores/{name}/{b:06}.json") or {}
            for method, scores in found.items():
                for slot, score in enumerate(scores):
                    i = b * job["batch"] + slot
                    rows.append(Row(i, job["ids"][i], int(target[i]), method, name, score))
    return rows
