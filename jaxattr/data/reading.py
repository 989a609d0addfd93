"""Records as batches of a model's inputs, read side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxattr.data.images import as_pil
from jaxattr.data.records import Record
from jaxattr.data.sources import Source

if TYPE_CHECKING:
    from PIL import Image


class Failure(NamedTuple):
    """A record that could not be read: its position in the source, and why."""

    position: int
    reason: str


class Batch(NamedTuple):
    """Inputs with the records that they are made of.

    Attributes:
        indices: int `(n,)`, positions in the source.
        inputs: `(n, h, w, 3)`.
        records: one for each input.
        failures: the positions of this batch that could not be read; they have no input.
    """

    indices: np.ndarray
    inputs: np.ndarray
    records: tuple[Record, ...]
    failures: tuple[Failure, ...]


def shard(length: int, index: int, count: int) -> range:
    """Return the positions that process `index` of `count` reads: one contiguous block each.

    >>> [list(shard(5, i, 2)) for i in range(2)]
    [[0, 1], [2, 3, 4]]
    """
    if not 0 <= index < count:
        raise ValueError(f"there is no shard {index} of {count}: they are 0 to {count - 1}")
    return range(length * index // count, length * (index + 1) // count)


def batches(
    source: Source,
    preprocess: Callable[[Image.Image], np.ndarray],
    *,
    size: int,
    indices: Sequence[int] | np.ndarray | None = None,
    threads: int = 2,
) -> Iterator[Batch]:
    """Read a data set in batches, the next ones while one is worked on.

    The order is that of `indices`, whatever the number of threads: to go on after a stop, give
    the positions that are left; to share the work, give each process its `shard`. At most two
    batches are held besides the one that was given out. A record that cannot be read stops
    nothing.

    Args:
        source: from `open_source`, or any sequence of records.
        preprocess: from a PIL image to an input, the same shape for every image.
        size: records in a batch; the last one may have fewer.
        indices: positions in the source; by default all.
        threads: how many records are read at once; 0 reads in the caller's thread.

    Yields:
        `Batch`. One whose records all failed has no inputs, shape `(0,)`.

    Raises:
        ValueError: if `size` is not positive.
        ModuleNotFoundError: without `grain`.
    """
    if size < 1:
        raise ValueError(f"a batch of {size} records cannot be read: give `size` at least 1")
    try:
        import grain
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'data sets are read by grain, which is not installed: pip install "jaxattr[data]"',
            name="grain",
        ) from None
    chosen = _Reads(source, preprocess, range(len(source)) if indices is None else indices)
    if not len(chosen):
        return
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * size)
    reads = grain.MapDataset.source(chosen).to_iter_dataset(options)
    group: list[Any] = []
    for read in reads:
        group.append(read)
        if len(group) == size:
            yield _batch(group)
            group = []
    if group:
        yield _batch(group)


class _Reads(NamedTuple("_Reads", [("source", Any), ("preprocess", Callable), ("at", Any)])):
    """The inputs of a source by position, as grain reads them."""

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, i: Any) -> Any:
        index = int(self.at[i])
        try:
            record = self.source[index]
            return index, record, self.preprocess(as_pil(record.image))
        except (ValueError, OSError) as error:
            return Failure(index, str(error))


def _batch(reads: list[Any]) -> Batch:
    good = [read for read in reads if not isinstance(read, Failure)]
    failures = tuple(read for read in reads if isinstance(read, Failure))
    indices, records, inputs = zip(*good, strict=True) if good else ((), (), ())
    stacked = np.stack(inputs) if good else np.zeros(0, np.float32)
    return Batch(np.array(indices, int), stacked, records, failures)
