"""Read a checkpoint into NumPy arrays, one at a time, without torch."""

import mmap
import sys
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .legacy_format import read_legacy
from .tensors import CheckpointError, Contents, Tensor, view


class Checkpoint(Mapping[str, np.ndarray]):
    """The arrays of a checkpoint by name, each read from the file when it is asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]):
        self._readers = readers

    def __getitem__(self, key: str) -> np.ndarray:
        return self._readers[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_checkpoint(path: str | PathLike[str]) -> Mapping[str, np.ndarray]:
    """Open a checkpoint of torch (zip or legacy format) or safetensors, recognised by content.

    Returns:
        The arrays by name, read-only, read when asked for.

    Raises:
        CheckpointError: the file is damaged, of an unknown form, or asks for more than tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            file = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        contents = read_legacy(file)
        tensors = state_dict(contents.value)
        return Checkpoint({key: _reader(file, contents, t) for key, t in tensors.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__


def _reader(file: mmap.mmap, contents: Contents, tensor: Tensor) -> Callable[[], np.ndarray]:
    region = contents.regions[tensor.storage.key]
    swap = contents.little_endian != (sys.byteorder == "little")
    return lambda: view(tensor, region, file, swap=swap)


def state_dict(content: Any) -> dict[str, Tensor]:
    """Find the tensors of a checkpoint."""
    return {k: v for k, v in content.items() if isinstance(v, Tensor)}
