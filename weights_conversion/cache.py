"""Converted weights, kept as Orbax checkpoints so that a second load converts nothing."""

import hashlib
import json
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from .checkpoints import open_checkpoint
from .converter import convert
from .folders import cache_directory, sha256_of

VERSION = 1
"""Of the converter: raised when it gives other values, so that old entries are left alone."""

WEIGHTS = "weights"
"""The Orbax checkpoint inside an entry: a dict of arrays by dotted path."""

_MANIFEST = "manifest.json"
_CHUNK = 1 << 20  # bytes


def restore_or_convert(
    path: str | PathLike[str],
    model: nnx.Module,
    *,
    name: str,
    rename: Callable[[str], str] | None = None,
    flatten: Mapping[str, tuple[int, int, int]] | None = None,
    dtype: Any = None,
    directory: str | PathLike[str] | None = None,
) -> nnx.State:
    """Return `convert(open_checkpoint(path), model, ...)`, from the cache when it is there.

    An entry belongs to the SHA-256 of the source, the model's name and skeleton, the dtype and the
    version of the converter. It appears whole or not at all; one that was damaged since is built
    anew. Where the cache cannot be written the weights are converted each time, with a warning.

    Args:
        path: the checkpoint.
        model: the model or its skeleton from `nnx.eval_shape`; read, not changed.
        name: of the model; it stands for `rename`, which has no hash.
        rename: as for `convert`.
        flatten: as for `convert`.
        dtype: as for `convert`.
        directory: where entries are kept; by default `converted` in `cache_directory()`.

    Raises:
        CheckpointError: as `open_checkpoint` and `convert`.
    """
    folder = Path(directory) if directory is not None else cache_directory() / "converted"
    skeleton = nnx.state(model, (nnx.Param, nnx.BatchStat))
    kind = "" if dtype is None else np.dtype(dtype).name
    described = [(p, v.shape, str(v.dtype)) for p, v in nnx.to_flat_state(skeleton)]
    maps = sorted((flatten or {}).items())
    key = json.dumps([VERSION, sha256_of(Path(path)), name, kind, maps, described])
    entry = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if is_whole(entry):
        try:
            return restore(entry, skeleton)
        except Exception as error:  # Orbax raises all sorts, and building anew is always right
            warnings.warn(f"{entry} cannot be restored and is built anew: {error}", stacklevel=2)
    state = convert(open_checkpoint(path), model, rename=rename, flatten=flatten, dtype=dtype)
    try:
        save(state, entry)
    except OSError as error:
        warnings.warn(f"the converted weights are not kept: {error}", stacklevel=2)
    return state


def save(state: nnx.State, entry: Path) -> None:
    """Write a state as an Orbax checkpoint with a manifest of its files, atomically.

    What was at `entry` is replaced.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save((draft / WEIGHTS).resolve(), _by_name(state))
        (draft / _MANIFEST).write_text(json.dumps(_manifest(draft)))
        shutil.rmtree(entry, ignore_errors=True)
        draft.replace(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_whole(entry: Path) -> bool:
    """Tell whether every file of an entry is there with the size and CRC-32 of its manifest."""
    try:
        return json.loads((entry / _MANIFEST).read_text()) == _manifest(entry)
    except (OSError, ValueError):
        return False


def restore(entry: Path, skeleton: nnx.State) -> nnx.State:
    """Read the state that `save` wrote, in the form of `skeleton`.

    Raises:
        KeyError: a variable of the skeleton is missing.
        ValueError: one has another shape.
    """
    here = ocp.ArrayRestoreArgs(sharding=jnp.zeros(()).sharding)
    arguments = dict.fromkeys(_by_name(skeleton), here)
    with _checkpointer() as checkpointer:
        arrays = checkpointer.restore((entry / WEIGHTS).resolve(), restore_args=arguments)
    restored = []
    for path, variable in nnx.to_flat_state(skeleton):
        array = arrays[_name(path)]
        if array.shape != variable.shape:
            raise ValueError(f"{_name(path)} is {array.shape}, not {variable.shape}")
        restored.append((path, variable.replace(array)))
    return nnx.from_flat_state(restored)


def _by_name(state: nnx.State) -> dict[str, Any]:
    return {_name(path): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _manifest(entry: Path) -> dict[str, list[int]]:
    """Return the size and CRC-32 of each file of an entry."""
    manifest = {}
    for file in sorted((entry / WEIGHTS).rglob("*")):
        if file.is_file():
            crc, size = 0, 0
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            manifest[file.relative_to(entry).as_posix()] = [size, crc]
    return manifest


def _checkpointer() -> ocp.Checkpointer:
    # Weights hardly shrink, and compressed they take three times as long to write and read.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))
