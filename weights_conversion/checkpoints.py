"""Read a checkpoint into NumPy arrays, one at a time, without torch."""

import logging
import mmap
import sys
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from .choosing import Chosen, choose
from .kinds_of_files import described
from .legacy_format import is_legacy, read_legacy
from .orbax_format import OrbaxFolder, is_orbax
from .safetensors_format import is_safetensors, read_safetensors
from .shards import Shards, is_index, read_index, resolve
from .tensors import CheckpointError, Contents, Tensor, quote, verify, view
from .zip_format import is_zip, read_zip

_LOG = logging.getLogger(__name__)


class Checkpoint(Mapping[str, np.ndarray]):
    """The arrays of a checkpoint by name, each read from the file when it is asked for.

    Attributes:
        path: the file.
        key: the keys that lead to the state dict in it, joined by dots.
        others: keys of other dicts in it that the model's weights could have been.
    """

    def __init__(self, path: Path, file: mmap.mmap, contents: Contents, chosen: Chosen):
        self.path = path
        self._file = file
        self._contents = contents
        self._tensors: Mapping[str, Tensor]
        self._tensors, self.key, self.others = chosen
        self._verified: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        key = tensor.storage.key
        region = self._contents.regions[key]
        if key not in self._verified and not verify(self._file, region):
            raise CheckpointError(f"{self.path}: {quote(name)} fails its CRC-32: it is corrupted")
        self._verified.add(key)
        swap = self._contents.little_endian != (sys.byteorder == "little")
        return view(tensor, region, self._file, swap=swap)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array, of which none is read."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {len(self)} arrays)"


def open_checkpoint(
    path: str | PathLike[str], *, key: str | None = None, ema: bool = True
) -> Checkpoint | Shards | OrbaxFolder:
    """Open a checkpoint of torch (zip or legacy format), safetensors or Orbax, told by content.

    A state dict inside a training checkpoint is found under its usual names (`state_dict`,
    `model`, ...). Where there is an average of the weights over training too (`state_dict_ema`,
    `model_ema`, ...), it is taken, as timm does, and a warning of the log says so. Prefixes
    `module.` and `_orig_mod.`, of `DataParallel` and `torch.compile`, are taken off when every
    key has them. torch is not needed, nothing in the file is run, and every number in it is
    checked. Objects that are no tensors, such as the options of a training script, are passed
    over; inside the state dict they are an error.

    Args:
        path: a local file; it must not be changed while its arrays are in use. Of a checkpoint in
            several files, their index (`*.index.json`) or their folder; the folder of an Orbax
            checkpoint of an NNX state.
        key: where the state dict is in the file, as `"teacher"` or `"models.student"`.
        ema: whether the average of the weights is preferred to the last ones.

    Returns:
        The arrays by name, in the file's order: read-only views of the mapped file, checked
        against its CRC-32 (zip format) when first asked for. bfloat16, complex32 and float8 are
        ml_dtypes' types.

    Raises:
        CheckpointError: the file is damaged, of another kind, or holds no state dict; for damage to
            the values themselves, when they are read.
    """
    if is_orbax(Path(path)):
        return OrbaxFolder(Path(path), key)
    path = resolve(Path(path))
    if is_index(path):
        files = read_index(path)
        opened = {file: _opened(file, key, ema=ema) for file in sorted(set(files.values()))}
        for name, file in files.items():
            if name not in opened[file]:
                raise CheckpointError(f"{path}: {quote(name)} is not in {quote(file.name)}")
        return Shards(path, {name: opened[file] for name, file in files.items()}, key)
    return _opened(path, key, ema=ema)


def _opened(path: Path, key: str | None, *, ema: bool) -> Checkpoint:
    try:
        file, contents = _open(path)
        chosen = choose(contents.value, key=key, ema=ema)
        _check_storages(chosen.tensors, contents)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if chosen.others:
        _LOG.warning(
            "%s: of its weights those of %r are taken; it has %s too, see key= and ema=",
            path,
            chosen.key,
            ", ".join(map(repr, chosen.others)),
        )
    return Checkpoint(path, file, contents, chosen)


def _check_storages(tensors: Mapping[str, Tensor], contents: Contents) -> None:
    """Raise `CheckpointError` if a tensor lies outside its storage's bytes."""
    for name, tensor in tensors.items():
        storage = tensor.storage
        region = contents.regions.get(storage.key)
        if region is None or storage.end > region.size:
            raise CheckpointError(
                f"the storage of {quote(name)} needs {storage.end} bytes, but the file has "
                f"{region.size if region else 0}: it is truncated or damaged"
            )


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
    what = described(file[:64])
    raise CheckpointError(
        "it is no checkpoint of torch's or of safetensors" + (f", but {what}" if what else "")
    )
