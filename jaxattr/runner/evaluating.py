"""Metrics of stored maps, image by image, and go on after a stop."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxattr import metrics
from jaxattr.data import Record, Source, batches, class_mask
from jaxattr.data.reading import shard as part_of
from jaxattr.runner.devices import part, spread, with_weights
from jaxattr.runner.jobs import hash_of
from jaxattr.runner.store import Store, array_name, differences, open_store
from jaxattr.runner.tables import Row, write_tables
from jaxattr.scores import sigmoid
from jaxattr.types import Array

OF_MODEL = ("insertion", "deletion", "morf", "lerf", "completeness_error", "infidelity")
OF_TRUTH = ("pointing_game", "energy_pointing_game", "localization_iou", "segmentation_iou")
OF_MAP = ("boundary_dependency",)
METRICS = (*OF_MODEL, *OF_TRUTH, *OF_MAP)
"""The metrics of stored maps; the other metrics compare networks, or methods."""

LOWER = ("deletion", "morf", "completeness_error", "infidelity", "boundary_dependency")
"""Those of which a lower score is the better one."""

CANVAS = 256
"""Photographs are padded to a multiple of this, so that few shapes are compiled."""


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

    Scores lie beside the maps, in a document a batch and metric: what was measured is not measured
    again. At the end `scores.csv` (a row an image, method and metric), the same as `.parquet`
    where pyarrow is installed, `means.csv` and `comparisons.csv` are written.

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
    programs = {n: _program(n, dict(options), model, alone) for n, options in measures.items()}
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
            truth = _truth(batch.records, target, preprocess)
            for name in (n for n in measures if b in missing[n]):
                found = {}
                for method, a in explained.items():
                    scores = np.full(len(wanted[b]), np.nan)
                    given = batch.inputs, target, a.astype(np.float32), truth
                    if len(slots):
                        scores[slots] = programs[name](*_filled(given, size))[: len(slots)]
                    found[method] = [None if math.isnan(s) else float(s) for s in scores]
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


def _program(
    name: str, options: dict[str, Any], model: Any, alone: bool
) -> Callable[..., np.ndarray]:
    """Return `(x, target, maps, truth) -> scores` of a metric; a class may stand `alone`."""
    metric = getattr(metrics, name)
    if name in OF_MODEL:
        if alone:
            options.setdefault("score", sigmoid)

        def of_model(model: Any, x: Array, target: Array, a: Array) -> Array:
            measure = metric(lambda x: model(x), **options)
            keyed = "key" in inspect.signature(measure).parameters
            return measure(x, target, a, **({"key": jax.random.key(0)} if keyed else {})).score

        run = with_weights(of_model, model, spread())
        return lambda x, target, a, truth: np.asarray(run(x, target, a))
    if name in OF_MAP:
        of_map = jax.jit(lambda a: metric(a, **options).score)
        return lambda x, target, a, truth: np.asarray(of_map(a))
    of_truth = jax.jit(lambda a, mask, **given: metric(a, mask, **given, **options).score)

    def measured(x: Any, target: Any, a: np.ndarray, truth: dict[str, Any]) -> np.ndarray:
        given = truth if name == "segmentation_iou" else {k: truth[k] for k in ("mask", "sizes")}
        return np.where(truth["mask"].any((1, 2)), of_truth(a, **given), np.nan)

    return measured


def _truth(records: Sequence[Record], target: np.ndarray, preprocess: Any) -> dict[str, np.ndarray]:
    """Return masks of the classes in the visible part of each photograph, padded to one shape."""
    parts = []
    for record, label in zip(records, target, strict=True):
        r0, c0, r1, c1 = preprocess.geometry(record.image.shape[:2]).visible
        void = np.zeros(record.image.shape[:2], bool) if record.void is None else record.void
        parts.append([m[r0:r1, c0:c1] for m in (class_mask(record, int(label)), void)])
    sizes = np.array([mask.shape for mask, _ in parts], int).reshape(-1, 2)
    canvas = -(-sizes.max(0, initial=1) // CANVAS) * CANVAS
    mask, void = (np.zeros((len(parts), *canvas), bool) for _ in range(2))
    for i, (m, v) in enumerate(parts):
        mask[i, : m.shape[0], : m.shape[1]], void[i, : m.shape[0], : m.shape[1]] = m, v
    return {"mask": mask, "void": void, "sizes": sizes}


def _filled(given: Any, size: int) -> Any:
    """Fill a batch up by copies of its first image, so that one program serves all batches."""
    fill = lambda a: np.concatenate([a, np.repeat(a[:1], size - len(a), 0)])
    return jax.tree.map(fill, given)


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
