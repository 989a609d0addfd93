"""Orbax checkpoints of NNX states: those that `save` writes, and those of training scripts."""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from .converter import torch_name
from .tensors import CheckpointError

MANIFEST = "manifest.json"
_CHUNK = 1 << 20  # bytes
_TREE = "_METADATA"
_VALUES = ("value", "raw_value")  # the last key of a variable, where it was written whole


class OrbaxFolder(Mapping[str, np.ndarray]):
    """The arrays of a checkpoint, each named and laid out as torch would have it.

    The parameter at `layer1.0.conv1.kernel`, `(*window, I, O)`, is `layer1.0.conv1.weight`,
    `(O, I, *window)`. Dense layers take maps as Flax flattens them. Numbers that are not floating,
    such as counters, are left out.

    Attributes:
        path: the folder.
        key: what leads to the model's state in it, if it was asked for: first the name of an item,
            where a step has several.
        of_flax: that windows and maps are in Flax's order, for `convert`.
    """

    of_flax = True

    def __init__(self, path: Path, key: str | None = None):
        self.path, self.key = path, key
        item, inside = _item(path, key)
        self._arrays = dict(_named(_read(path, item), inside))
        if not self._arrays:
            raise CheckpointError(f"{path}: it holds no floating arrays under the key {key!r}")

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        return {name: array.shape for name, array in self._arrays.items()}


def is_orbax(path: Path) -> bool:
    """Tell whether a folder holds an Orbax checkpoint, or steps of one."""
    return path.is_dir() and bool(_items(path))


def _items(path: Path) -> list[Path]:
    """Return the folders of arrays, of several steps those of the last."""
    for pattern in (_TREE, f"*/{_TREE}", f"*/*/{_TREE}"):
        found = sorted(file.parent for file in path.glob(pattern))
        if found:
            step = lambda folder: [int(p) for p in folder.parts[len(path.parts) :] if p.isdecimal()]
            last = max(map(step, found))
            return [folder for folder in found if step(folder) == last]
    return []


def _item(path: Path, key: str | None) -> tuple[Path, str | None]:
    """Return the folder of the arrays, and what leads to the state in it."""
    of_step = lambda p: "/".join(n for n in p.relative_to(path).parts if not n.isdecimal())
    items = {of_step(folder): folder for folder in _items(path)}
    first, _, rest = (key or "").partition(".")
    if len(items) == 1:
        return next(iter(items.values())), key
    if first not in items:
        listed = ", ".join(items)
        raise CheckpointError(f"{path}: the key is the name of one of its items: {listed}")
    return items[first], rest or None


def _read(path: Path, item: Path) -> Any:
    if (item / MANIFEST).exists() and not is_whole(item):
        raise CheckpointError(f"{path}: its files do not agree with its manifest")
    try:
        with checkpointer() as reader:
            written = reader.metadata(item.resolve()).item_metadata
            if written is None:
                raise ValueError("it is damaged, or was not written to its end")
            plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), written.tree)
            return reader.restore(item.resolve(), restore_args=plain)
    except Exception as error:  # Orbax raises errors of many kinds
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: Orbax cannot read it: {reason}") from error


def _named(tree: Any, key: str | None) -> Iterator[tuple[str, np.ndarray]]:
    start = f"{key}." if key else ""
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        parts = [str(getattr(p, "key", getattr(p, "idx", p))) for p in path]
        name = ".".join(parts[:-1] if parts[-1] in _VALUES else parts)
        if name.startswith(start) and jax.numpy.issubdtype(array.dtype, np.floating):
            own = name.removeprefix(start).split(".")
            if own[-1] == "kernel" and array.ndim > 1:
                array = array.transpose(-1, -2, *range(array.ndim - 2))
            yield torch_name(own), array


def checkpointer() -> ocp.Checkpointer:
    """Return what reads and writes checkpoints, without compression."""
    # Weights hardly shrink, and compressed they take three times as long to write and read.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))


def is_whole(directory: Path) -> bool:
    """Tell whether the files of a folder agree with the manifest among them."""
    try:
        return json.loads((directory / MANIFEST).read_text()) == manifest(directory)
    except (OSError, ValueError):
        return False


def manifest(directory: Path) -> dict[str, list[int]]:
    """Return the size and CRC-32 of each file."""
    found = {}
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file != directory / MANIFEST:
            crc, size = 0, 0
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            found[file.relative_to(directory).as_posix()] = [size, crc]
    return found
