"""Read a checkpoint into NumPy arrays, one at a time, without torch."""

import mmap
import sys
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from .legacy_format import is_legacy, read_legacy
from .safetensors_format import is_safetensors, read_safetensors
from .tensors import CheckpointError, Contents, Tensor, quote, verify, view
from .zip_format import is_zip, read_zip

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""Keys under which training scripts keep the state dict, the first that is there counts."""

_PARALLEL = "module."  # what torch.nn.DataParallel puts before every key
MAX_DEPTH = 3  # a state dict inside a dict inside a dict


class Checkpoint(Mapping[str, np.ndarray]):
    """The arrays of a checkpoint by name, each read from the file when it is asked for."""

    def __init__(
        self, path: Path, file: mmap.mmap, contents: Contents, tensors: Mapping[str, Tensor]
    ):
        self._path = path
        self._file = file
        self._contents = contents
        self._tensors = tensors
        self._verified: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        key = tensor.storage.key
        region = self._contents.regions[key]
        if key not in self._verified and not verify(self._file, region):
            raise CheckpointError(f"{self._path}: {quote(name)} fails its CRC-32: it is corrupted")
        self._verified.add(key)
        swap = self._contents.little_endian != (sys.byteorder == "little")
        return view(tensor, region, self._file, swap=swap)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self._path)!r}, {len(self)} arrays)"


def open_checkpoint(path: str | PathLike[str]) -> Mapping[str, np.ndarray]:
    """Open a checkpoint of torch (zip or legacy format) or safetensors, recognized by content.

    A state dict inside a training checkpoint is found under its usual names (`state_dict`,
    `model`, ...), and the prefix `module.` of `DataParallel` is taken off when every key has it.
    torch is not needed, nothing in the file is run, and every number in it is checked.

    Args:
        path: a local file; it must not be changed while its arrays are in use.

    Returns:
        The arrays by name, in the file's order: read-only views of the mapped file, checked
        against its CRC-32 (zip format) when first asked for. bfloat16, complex32 and float8 are
        ml_dtypes' types.

    Raises:
        CheckpointError: the file is damaged, of an unknown form, holds no state dict, or asks for
            more than tensors; for damage to the values themselves, when they are read.
    """
    path = Path(path)
    try:
        file, contents = _open(path)
        tensors = find_state_dict(contents)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(path, file, contents, tensors)


def _open(path: Path) -> tuple[mmap.mmap, Contents]:
    with path.open("rb") as stream:
        size = path.stat().st_size
        if size == 0:
            raise CheckpointError("it is empty")
        file = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    start = file[:16]
    if is_zip(start):
        return file, read_zip(path, file)
    if is_safetensors(start, size):
        return file, read_safetensors(path, file)
    if is_legacy(start):
        return file, read_legacy(file)
    raise CheckpointError("it is no checkpoint of torch's or of safetensors")


def find_state_dict(contents: Contents) -> dict[str, Tensor]:
    """Find the tensors of a checkpoint; values that are none, such as counters, are left out.

    A prefix `module.` that every key has is taken off.

    Raises:
        CheckpointError: there are none, or one lies outside its storage's bytes.
    """
    value = contents.value
    if not isinstance(value, dict):
        raise CheckpointError(f"it holds a {type(value).__name__}, not a state dict")
    for _ in range(MAX_DEPTH):
        inner = [value[name] for name in WRAPPERS if isinstance(value.get(name), dict)]
        value = inner[0] if inner else value
    tensors = {key: tensor for key, tensor in value.items() if isinstance(tensor, Tensor)}
    if not tensors:
        names = ", ".join(quote(str(key)) for key in list(value)[:10])
        raise CheckpointError(f"it holds no state dict; its keys are: {names}")
    for key, tensor in tensors.items():
        if not isinstance(key, str):
            raise CheckpointError("a tensor of its state dict has no name")
        storage = tensor.storage
        region = contents.regions.get(storage.key)
        if region is None or storage.end > region.size:
            raise CheckpointError(
                f"the storage of {quote(key)} needs {storage.end} bytes, but the file has "
                f"{region.size if region else 0}: it is truncated or damaged"
            )
    if all(key.startswith(_PARALLEL) for key in tensors):
        return {key.removeprefix(_PARALLEL): tensor for key, tensor in tensors.items()}
    return tensors
