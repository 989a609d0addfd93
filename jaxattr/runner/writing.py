"""What a run leaves in its store: batches that are whole, names, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxattr.runner.jobs import Job
from jaxattr.runner.programs import Programs, Work
from jaxattr.runner.store import Store, array_name

_NODE = "/zarr.json"


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


class Writer:
    """Writes batches, and marks each as done when all of it is there."""

    def __init__(self, store: Store, job: Job, count: int):
        self.store, self.job, self.count = store, job, count
        self.arrays: dict[str, Any] = {}

    def finish(self, work: Work, programs: Programs) -> int:
        """Wait for a batch and write it; return how many examples were explained."""
        length = len(work.ids)
        document: dict[str, Any] = {"ids": work.ids, "failures": work.failures, "not_finite": {}}
        try:
            if work.found is not None:
                found = programs.collect(work)
                self._write(work, found, length, document)
            self.store.write(f"batches/{document_name(work.number)}", document)
        except (ValueError, OSError) as error:
            why = str(error).partition(" [tensorstore_spec=")[0]
            raise OSError(
                f"{self.store.url} cannot be written: {why}; what is there is whole, and the "
                "same command goes on from it"
            ) from None
        return length - len(work.failures)

    def _write(
        self, work: Work, found: dict[str, Any], length: int, document: dict[str, Any]
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


def document_name(number: int) -> str:
    """Return the name of the document that marks a batch as done."""
    return f"{number:06}.json"


def describe(store: Store, count: int) -> None:
    """Write the images' names beside the configuration, once all batches are done."""
    if len(store.names("batches")) < count:
        return
    group = store.read("zarr.json")
    group.pop("consolidated_metadata", None)
    ids = [i for b in range(count) for i in store.read(f"batches/{document_name(b)}")["ids"]]
    group["attributes"]["ids"] = ids
    store.write(f"maps{_NODE}", {**group, "attributes": {}})
    # With it readers of Zarr look for nothing else in the folder.
    members = {name.removesuffix(_NODE): store.read(name) for name in store.all_names(_NODE)}
    group["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": members,
    }
    store.write("zarr.json", group)


def summary(
    store: Store, job: Job, mine: range, examples: int, seconds: float, explained: int
) -> Summary:
    """Sum up the batches of a process, which are all done."""
    failures: dict[int, str] = {}
    not_finite: dict[str, list[int]] = {name: [] for name in job.methods}
    for b in mine:
        document, first = store.read(f"batches/{document_name(b)}"), b * job.batch
        failures |= {first + int(slot): why for slot, why in document["failures"].items()}
        for name, slots in document["not_finite"].items():
            not_finite[name] += [first + slot for slot in slots]
    count = max(min(mine.stop * job.batch, examples) - mine.start * job.batch, 0)
    return Summary(count, failures, not_finite, seconds, explained)
