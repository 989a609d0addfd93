"""Maps of a whole data set: read, explain, write, side by side, and go on after a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxattr.data import Batch, Source, batches
from jaxattr.data.reading import shard as part_of
from jaxattr.runner import jobs
from jaxattr.runner.devices import part, spread
from jaxattr.runner.jobs import Job
from jaxattr.runner.programs import Programs, Work
from jaxattr.runner.store import open_store
from jaxattr.runner.writing import Summary, Writer, describe, document_name, summary
from jaxattr.types import Array


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
    missing = [b for b in mine if document_name(b) not in done]
    programs = Programs(job, model, where)
    writer = Writer(store, job, len(pairs))
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
    describe(store, count)
    return summary(store, job, mine, len(pairs), time.perf_counter() - start, explained)


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


def _begin(job: Job, number: int, batch: Batch, pairs: np.ndarray, programs: Programs) -> Work:
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
    return Work(number, ids, failures, x, target, found)
