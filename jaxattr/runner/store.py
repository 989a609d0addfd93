"""Arrays and JSON in a folder or a bucket, written so that a killed process leaves nothing half."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np

TYPES = ("float32", "float16", "bfloat16")
"""How maps may be stored."""


class Store(NamedTuple):
    """A Zarr v3 group: arrays in chunks of a batch, and small JSON documents beside them.

    Any reader of Zarr opens it: `zarr.open(path)["maps/lrp"]`. A value that was not computed yet
    is NaN, in arrays of integers -1.

    Attributes:
        url: where it is, as TensorStore has it: `file:///runs/lrp/`, `gs://bucket/lrp/`.
        documents: the key-value store of the same place.
    """

    url: str
    documents: Any

    def read(self, name: str) -> Any:
        """Return a JSON document, or None if there is none."""
        found = self.documents.read(name).result()
        return json.loads(found.value) if found.state == "value" else None

    def write(self, name: str, content: Any) -> None:
        """Write a JSON document, whole or not at all."""
        self.documents.write(name, json.dumps(content, indent=1).encode()).result()

    def create(self, name: str, content: Any) -> bool:
        """Write a JSON document unless there is one, also of a process that writes it just now.

        Returns:
            Whether it was written.
        """
        before = self.documents.read(name).result()
        if before.state == "value":
            return False
        encoded = json.dumps(content, indent=1).encode()
        written = self.documents.write(name, encoded, if_equal=before.stamp.generation).result()
        return bool(written.generation)

    def names(self, folder: str) -> list[str]:
        """Return the names of the documents in a folder."""
        listed = self.documents.list(_range(f"{folder}/")).result()
        return sorted(name.decode().removeprefix(f"{folder}/") for name in listed)

    def all_names(self, end: str) -> list[str]:
        """Return the names of all that ends so."""
        listed = (name.decode() for name in self.documents.list().result())
        return sorted(name for name in listed if name.endswith(end))

    def files(self) -> list[str]:
        """Return what a local folder holds, but for drafts; nothing of a bucket."""
        if not self.url.startswith("file://"):
            return []
        found = sorted(p.name for p in Path(unquote(self.url.removeprefix("file://"))).iterdir())
        return [name for name in found if not name.endswith(".__lock")]

    def array(
        self, name: str, shape: Sequence[int], chunk: int, dtype: str, axes: Sequence[str]
    ) -> Any:
        """Open an array for writing, or make it: TensorStore's `array[i:j].write(values)`."""
        import tensorstore as ts

        fill = -1 if np.issubdtype(np.dtype(_numpy(dtype)), np.integer) else "NaN"
        metadata = {
            "shape": list(shape),
            "data_type": dtype,
            "fill_value": fill,
            "dimension_names": list(axes),
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [chunk, *shape[1:]]},
            },
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 1}},
            ],
        }
        spec = {"driver": "zarr3", "kvstore": self._inside(name), "metadata": metadata}
        return ts.open(spec, open=True, create=True).result()

    def open_array(self, name: str) -> Any:
        """Open an array for reading.

        Raises:
            FileNotFoundError: if there is none.
        """
        import tensorstore as ts

        try:
            spec = {"driver": "zarr3", "kvstore": self._inside(name)}
            return ts.open(spec, open=True, read=True).result()
        except ValueError as error:
            raise FileNotFoundError(f"{self.url} has no array {name!r}: {error}") from None

    def _inside(self, name: str) -> str:
        return f"{self.url}{quote(name)}/"


def open_store(where: str | Path, *, create: bool = False) -> Store:
    """Open a store.

    Args:
        where: a folder, or a URL that TensorStore knows.
        create: whether to make the folder.

    Raises:
        FileNotFoundError: if there is no such folder.
        OSError: if the folder cannot be made.
    """
    import tensorstore as ts

    url = str(where)
    if url.startswith("file://"):
        url = unquote(url.removeprefix("file://"))
    if "://" not in url:
        path = Path(url).absolute()
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.is_dir():
            raise FileNotFoundError(f"there is no folder {where}: `jaxattr run` makes it")
        url = f"file://{quote(str(path))}"
    url = f"{url.rstrip('/')}/"
    return Store(url, ts.KvStore.open(url).result())


def array_name(name: str) -> str:
    """Return the name of a method's array.

    >>> array_name("smoothgrad:guided_backprop")
    'smoothgrad-guided_backprop'
    """
    return name.replace(":", "-")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say where two configurations differ, a line each.

    >>> differences({"batch": 16, "methods": {"lrp": {}}}, {"batch": 8, "methods": {}})
    ['batch: 16 there, 8 now', 'methods.lrp: {} there, nothing now']
    """
    found = []
    for key in dict.fromkeys((*old, *new)):
        a, b = (side.get(key, "nothing") for side in (old, new))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} there, {b} now")
    return found


def _range(prefix: str) -> Any:
    import tensorstore as ts

    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return ts.KvStore.KeyRange(prefix, end)


def _numpy(dtype: str) -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
