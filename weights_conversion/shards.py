"""Checkpoints in several files, found by the index beside them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .orbax_format import is_orbax
from .tensors import CheckpointError, quote

_INDEX = "*.index.json"
_WHOLE = ("model.safetensors", "pytorch_model.bin")
MAX_INDEX = 1 << 26  # bytes


class Shards(Mapping[str, np.ndarray]):
    """The arrays of several files by name, each read when it is asked for.

    Attributes:
        path: the index.
        key: what leads to the state dict in each file, if it was asked for.
    """

    def __init__(self, path: Path, files: Mapping[str, Any], key: str | None):
        self.path = path
        self.key = key
        self._files = files

    def __getitem__(self, name: str) -> np.ndarray:
        return self._files[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array, of which none is read."""
        each = {id(file): file.shapes for file in self._files.values()}
        return {name: each[id(file)][name] for name, file in self._files.items()}

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}, {len(self)} arrays)"


def resolve(path: Path) -> Path:
    """Return the file of a checkpoint, which may be named by its folder.

    Raises:
        CheckpointError: the folder has no checkpoint by a usual name, or several indices.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in _WHOLE if (path / name).is_file()] or sorted(path.glob(_INDEX))
    if len(found) != 1:
        raise CheckpointError(
            f"{path}: this folder has {len(found) or 'no'} checkpoints called {', '.join(_WHOLE)} "
            f"or {_INDEX}: name the file"
        )
    return found[0]


def is_index(path: Path) -> bool:
    """Tell whether a file is an index of others, by its name."""
    return path.name.endswith(_INDEX[1:])


def read_index(path: Path) -> dict[str, Path]:
    """Return the file of each array.

    Raises:
        CheckpointError: it is no index, or names a file outside its folder, or one that is missing.
    """
    try:
        if path.stat().st_size > MAX_INDEX:
            raise ValueError("it is too large")
        names = dict(json.loads(path.read_text())["weight_map"])
        files = {key: path.parent / name for key, name in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: it is no index of a checkpoint: {error!r:.100}") from None
    for file in set(files.values()):
        if file.parent != path.parent:
            raise CheckpointError(f"{path}: it names {quote(str(file))}, outside its folder")
        if not file.is_file():
            raise CheckpointError(f"{path}: its file {quote(file.name)} is missing")
    return files


def files_of(path: Path) -> list[Path]:
    """Return all files of a checkpoint, for their hashes."""
    if is_orbax(path):
        return sorted(file for file in path.rglob("*") if file.is_file())
    path = resolve(path)
    return [path, *sorted(set(read_index(path).values()))] if is_index(path) else [path]
