"""Maps of a whole data set: read, explain, write, side by side, and go on after a stop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxattr import catalogue
from jaxattr.data import Batch, Source, batches
from jaxattr.data.reading import shard as part_of
from jaxattr.runner import jobs
from jaxattr.runner.devices import Spread, part, spread, with_weights
from jaxattr.runner.jobs import Job
from jaxattr.runner.store import Store, array_name, open_store
from jaxattr.scores import logit, probabilities
from jaxattr.types import Array, Key

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class Summary(NamedTuple):
    """How a run ended.

    Attributes:
        examples: how many this process had to explain.
        failures: reasons by number of the example, of those that could not be read.
        not_finite: for each method, the examples whose map has values that are not finite.
        seconds: how long this call took, and `explained` how many examples it explained.
    """

    examples: int
    failures: Mapping[int, str]
    not_finite: Mapping[str, Sequence[int]]
    seconds: float
    explained: int


class _Work(NamedTuple):
    """A batch on its way: what was read, and what the devices make of it."""

    number: int
    ids: list[str | None]
    failures: dict[int, str]
    x: np.ndarray
    target: np.ndarray
    found: Any


def explain(
    job: Job,
    source: Source,
    model: Callable[[Array], Array],
    preprocess: Callable[..., np.ndarray],
    out: str | Path,
    *,
    shard: str | None = None,
    threads: int = 2,
    progress: bool = True,
) -> Summary:
    """Explain a data set.

    Each batch is read, explained and written while its neighbors are in the other two stages, and
    marked as done when all of it is on disk: a run that is killed and called again does only what
    is missing, and its arrays are bit for bit those of a run that was not. What cannot be read is
    named in the store and in the summary, has NaN for a map, and stops nothing.

    The store `out` gets `maps/METHOD` `(n, H, W)`, or `(n, H, W, C)` with `channels`; `target`,
    `probability` of the target, `predicted` and `predicted_probability` `(n,)`; the configuration
    and, at the end, the images' `ids` are attributes of the group.

    Args:
        job: what is computed.
        source: the data set, its labels numbered as the model's classes (`with_classes`).
        model: images `(B, H, W, 3)` to logits `(B, K)`: a Flax NNX module or any function. Where it
            has `multi_label`, probabilities are sigmoids.
        preprocess: from a PIL image to an input.
        out: a folder, or a URL that TensorStore knows.
        shard: "i/n" for one of n independent processes; by default JAX's own processes share the
            run, if `jax.distributed` was initialized.
        threads: how many images are read at once.
        progress: whether to show a bar.

    Raises:
        ValueError: if the job cannot be run, or `out` holds another one.
        OSError: if `out` cannot be written; the same call goes on once it can.
    """
    jobs.check(job)
    start = time.perf_counter()
    chains = {name: catalogue.find(name) for name in job.methods}
    store, where = open_store(out, create=True), spread()
    if job.batch % where.devices:
        raise ValueError(
            f"a batch of {job.batch} images cannot be shared by {where.devices} devices: give a "
            "multiple of their number"
        )
    jobs.claim(store, jobs.configuration(job, model, preprocess, source.classes))
    pairs = jobs.examples(job, source, store)
    count = math.ceil(len(pairs) / job.batch)
    mine = part_of(count, *part(shard))
    done = set(store.names("batches"))
    missing = [b for b in mine if _document(b) not in done]
    programs = _Programs(job, chains, model, where)
    writer = _Writer(store, job, len(pairs))
    before, explained = None, 0
    with tqdm(
        total=len(mine), initial=len(mine) - len(missing), unit="batch", disable=not progress
    ) as bar:
        for number, batch in _reads(job, source, preprocess, pairs, missing, threads):
            work = _begin(job, number, batch, pairs, programs)
            if before is not None:
                explained += writer.finish(before, programs)
                bar.update()
            before = work
        if before is not None:
            explained += writer.finish(before, programs)
            bar.update()
    _describe(store, count)
    return _summary(store, job, mine, len(pairs), time.perf_counter() - start, explained)


def _reads(
    job: Job,
    source: Source,
    preprocess: Callable[..., np.ndarray],
    pairs: np.ndarray,
    numbers: Sequence[int],
    threads: int,
) -> Iterator[tuple[int, Batch]]:
    """Read the batches of these numbers; only the last of all may be short."""
    wanted = [pairs[b * job.batch : (b + 1) * job.batch, 0] for b in numbers]
    indices = np.concatenate(wanted) if wanted else np.zeros(0, int)
    read = batches(source, preprocess, size=job.batch, indices=indices, threads=threads)
    return zip(numbers, read, strict=True)


def _begin(job: Job, number: int, batch: Batch, pairs: np.ndarray, programs: _Programs) -> _Work:
    """Put what was read into its slots, and start the devices on it."""
    slots = pairs[number * job.batch : (number + 1) * job.batch]
    reasons = {f.position: f.reason for f in batch.failures}
    good = iter(zip(batch.records, batch.inputs, strict=True))
    ids: list[str | None] = []
    failures: dict[int, str] = {}
    x = np.zeros((job.batch, *batch.inputs.shape[1:]), np.float32)
    target = np.full(job.batch, -1)
    for slot, (position, label) in enumerate(slots):
        if position in reasons:
            ids.append(None)
            failures[slot] = reasons[position]
            continue
        record, pixels = next(good)
        ids.append(record.id)
        x[slot], target[slot] = pixels, label
        if job.target == "label":
            if len(record.labels) == 1:
                target[slot] = record.labels[0]
            else:
                failures[slot] = (
                    f"it has the labels {record.labels.tolist()}: the target 'label' needs one, "
                    "'all-labels' explains each"
                )
    found = programs.start(number, x, target) if len(failures) < len(slots) else None
    return _Work(number, ids, failures, x, target, found)


class _Programs:
    """The jitted functions of a job; they take smaller parts of a batch when memory is short."""

    def __init__(self, job: Job, chains: Mapping[str, Any], model: Any, where: Spread):
        self.job, self.where, self.parts = job, where, 1
        self.multi_label = getattr(model, "multi_label", False)
        self.classify = with_weights(self._classify, model, where)
        self.methods = {
            name: with_weights(self._method(chain, dict(job.methods[name])), model, where)
            for name, chain in chains.items()
        }

    def _classify(self, model: Any, x: Array, target: Array) -> dict[str, Array]:
        likely = probabilities(model(x), multi_label=self.multi_label)
        top = likely.argmax(-1)
        target = jnp.where(target < 0, top, target)
        return {
            "target": target,
            "probability": logit(likely, target),
            "predicted": top,
            "predicted_probability": likely.max(-1),
        }

    def _method(self, chain: Any, options: Mapping[str, Any]) -> Callable[..., Any]:
        def explained(model: Any, x: Array, target: Array, key: Key) -> tuple[Array, Array]:
            a = catalogue.build(chain, lambda x: model(x), **options)(x, target, key=key)
            a = a.astype(jnp.promote_types(a.dtype, jnp.float32))
            a = a if self.job.channels else a.sum(-1)
            return a.astype(self.job.dtype), jnp.isfinite(a).all(range(1, a.ndim))

        return explained

    def start(self, number: int, x: np.ndarray, target: np.ndarray) -> list[dict[str, Any]]:
        """Start the devices on a batch; nothing if memory is short at once."""
        try:
            return self._run(number, x, target)
        except jax.errors.JaxRuntimeError as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            return []

    def _run(self, number: int, x: np.ndarray, target: np.ndarray) -> list[dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(self.job.seed), number)
        found = []
        for rows, classes in zip(
            np.split(x, self.parts), np.split(target, self.parts), strict=True
        ):
            placed, known = jax.device_put((rows, classes), self.where.images)
            facts = self.classify(placed, known)
            maps = {k: run(placed, facts["target"], key) for k, run in self.methods.items()}
            found.append({**facts, "maps": maps})
        return found

    def collect(self, work: _Work) -> dict[str, Any]:
        """Wait for a batch, and halve it as often as memory asks for."""
        found = work.found
        while True:
            try:
                found = found or self._run(work.number, work.x, work.target)
                return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
            except jax.errors.JaxRuntimeError as error:
                whole = self.job.batch % (2 * self.parts * self.where.devices) == 0
                if _OUT_OF_MEMORY not in str(error) or not whole:
                    raise
                self.parts *= 2
                warnings.warn(
                    f"out of memory: from batch {work.number} on {self.job.batch // self.parts} "
                    f"images at a time instead of {2 * self.job.batch // self.parts}",
                    stacklevel=4,
                )
                found = []


class _Writer:
    """Writes batches, and marks each as done when all of it is there."""

    def __init__(self, store: Store, job: Job, count: int):
        self.store, self.job, self.count = store, job, count
        self.arrays: dict[str, Any] = {}

    def finish(self, work: _Work, programs: _Programs) -> int:
        """Wait for a batch and write it; return how many examples were explained."""
        length = len(work.ids)
        document: dict[str, Any] = {"ids": work.ids, "failures": work.failures, "not_finite": {}}
        try:
            if work.found is not None:
                found = programs.collect(work)
                self._write(work, found, length, document)
            self.store.write(f"batches/{_document(work.number)}", document)
        except (ValueError, OSError) as error:
            raise OSError(
                f"{self.store.url} cannot be written: {error}; what is there is whole, and the "
                "same command goes on from it"
            ) from None
        return length - len(work.failures)

    def _write(
        self, work: _Work, found: dict[str, Any], length: int, document: dict[str, Any]
    ) -> None:
        bad = list(work.failures)
        good = np.setdiff1d(np.arange(length), bad)
        first, writes = work.number * self.job.batch, []
        for name, (maps, finite) in found.pop("maps").items():
            document["not_finite"][name] = [int(i) for i in good if not finite[i]]
            maps[bad] = np.nan
            axes = ["image", "row", "column", "channel"][: maps.ndim]
            array = self._array(f"maps/{array_name(name)}", maps.shape[1:], self.job.dtype, axes)
            writes.append(array[first : first + length].write(maps[:length]))
        for name, values in found.items():
            whole = np.issubdtype(values.dtype, np.integer)
            values[bad] = -1 if whole else np.nan
            array = self._array(name, (), "int32" if whole else "float32", ["image"])
            writes.append(array[first : first + length].write(values[:length]))
        for write in writes:
            write.result()

    def _array(self, name: str, shape: tuple[int, ...], dtype: str, axes: Sequence[str]) -> Any:
        if name not in self.arrays:
            whole = (self.count, *shape)
            self.arrays[name] = self.store.array(name, whole, self.job.batch, dtype, axes)
        return self.arrays[name]


def _document(number: int) -> str:
    return f"{number:06}.json"


def _describe(store: Store, count: int) -> None:
    """Write the images' names beside the configuration, once all batches are done."""
    if len(store.names("batches")) < count:
        return
    group = store.read("zarr.json")
    ids = [i for b in range(count) for i in store.read(f"batches/{_document(b)}")["ids"]]
    group["attributes"]["ids"] = ids
    store.write("zarr.json", group)


def _summary(
    store: Store, job: Job, mine: range, examples: int, seconds: float, explained: int
) -> Summary:
    failures: dict[int, str] = {}
    not_finite: dict[str, list[int]] = {name: [] for name in job.methods}
    for b in mine:
        document, first = store.read(f"batches/{_document(b)}"), b * job.batch
        failures |= {first + int(slot): why for slot, why in document["failures"].items()}
        for name, slots in document["not_finite"].items():
            not_finite[name] += [first + slot for slot in slots]
    count = max(min(mine.stop * job.batch, examples) - mine.start * job.batch, 0)
    return Summary(count, failures, not_finite, seconds, explained)
