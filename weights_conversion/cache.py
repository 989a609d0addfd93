"""Converted weights, kept as Orbax checkpoints so that a second load converts nothing."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from filelock import FileLock, Timeout
from flax import nnx

from .checkpoints import open_checkpoint
from .converter import convert
from .folders import cache_directory, sha256_of
from .matching import Rename
from .orbax_format import MANIFEST, checkpointer, is_whole, manifest
from .shards import files_of
from .tensors import CheckpointError

VERSION = 3
"""Of the converter: raised when it gives other values, so that old entries are left alone."""

_LOG = logging.getLogger(__name__)
_LOCK = "jaxattr-draft.lock"


def restore_or_convert(
    path: str | PathLike[str],
    model: nnx.Module,
    *,
    name: str,
    key: str | None = None,
    ema: bool = True,
    rename: Rename | None = None,
    flatten: Mapping[str, tuple[int, int, int]] | None = None,
    dtype: Any = None,
    directory: str | PathLike[str] | None = None,
) -> nnx.State:
    """Return `convert(open_checkpoint(path), model, ...)`, from the cache when it is there.

    An entry belongs to the source's SHA-256, the model's name and skeleton, the options and the
    version of the converter. It appears whole or not at all; one that was damaged since is built
    anew. Where the cache cannot be written the weights are converted each time.

    Args:
        path: the checkpoint.
        model: the model or its skeleton from `nnx.eval_shape`; read, not changed.
        name: of the model; it stands for a `rename` that is a function, which has no hash.
        key: as for `open_checkpoint`.
        ema: as for `open_checkpoint`.
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
    names = sorted(rename.items()) if isinstance(rename, Mapping) else None
    hashes = [sha256_of(file) for file in files_of(Path(path))]
    whole = json.dumps([VERSION, hashes, name, key, ema, names, kind, maps, described])
    entry = folder / f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"
    if entry.exists():
        try:
            return restore(entry, model)
        except Exception as error:  # Orbax raises errors of many kinds; converting again is safe
            _LOG.warning("the cache entry %s is built anew: %s", entry, error)
    checkpoint = open_checkpoint(path, key=key, ema=ema)
    state = convert(checkpoint, model, rename=rename, flatten=flatten, dtype=dtype)
    try:
        shutil.rmtree(entry, ignore_errors=True)
        _check_room(state, folder)
        save(state, entry)
    except Exception as error:  # Orbax raises errors of many kinds for a disk that is full
        if not entry.exists():  # another process may have been first
            reason = str(error).partition("\n")[0]
            _LOG.warning(
                "the converted weights are not kept, and will be converted again: %s", reason
            )
    return state


def _check_room(state: nnx.State, folder: Path) -> None:
    """Raise `OSError` where a state does not fit: Orbax's threads would print tracebacks."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(a.nbytes for a in jax.tree.leaves(state))
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise OSError(f"{folder} has {free >> 20} MiB of space, and they take {needed >> 20}")


def save(state: nnx.State, directory: str | PathLike[str]) -> None:
    """Write a state as an Orbax checkpoint that appears whole or not at all.

    The checkpoint is a dict of arrays by dotted path, `layer1.0.conv1.kernel`. A manifest of its
    files lies among them, with their sizes and CRC-32s. It is written to a hidden draft beside
    `directory`; drafts whose writers were killed are removed.

    Raises:
        OSError: the directory cannot be written, or is there already and not empty.
    """
    directory = Path(directory).resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_drafts(directory.parent)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        with FileLock(draft / _LOCK), checkpointer() as writer:
            writer.save(draft / "weights", _by_name(state))
            (draft / "weights" / MANIFEST).write_text(json.dumps(manifest(draft / "weights")))
            (draft / "weights").replace(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _remove_drafts(directory: Path) -> None:
    """Remove drafts that nobody writes; the system releases the locks of a killed process."""
    for lock in directory.glob(f".*/{_LOCK}"):
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(lock.parent / "weights", ignore_errors=True)
        except (Timeout, OSError):
            continue
        shutil.rmtree(lock.parent, ignore_errors=True)


def restore(directory: str | PathLike[str], model: nnx.Module) -> nnx.State:
    """Read the state that `save` wrote, for a model or its skeleton from `nnx.eval_shape`.

    Raises:
        CheckpointError: a file is missing or damaged, or a variable has another name or shape.
    """
    directory = Path(directory).resolve()
    if not is_whole(directory):
        raise CheckpointError(f"{directory}: its files do not agree with its manifest")
    skeleton = nnx.state(model, (nnx.Param, nnx.BatchStat))
    here = ocp.ArrayRestoreArgs(sharding=jnp.zeros(()).sharding)
    with checkpointer() as reader:
        names = reader.metadata(directory).item_metadata.tree
        arrays = reader.restore(directory, restore_args=dict.fromkeys(names, here))
    wanted = {name: value.shape for name, value in _by_name(skeleton).items()}
    found = {name: array.shape for name, array in arrays.items()}
    if wanted != found:
        differing = sorted(dict(wanted.items() ^ found.items()))
        raise CheckpointError(f"{directory}: does not fit the model at {', '.join(differing)}")
    return nnx.from_flat_state(
        [(path, v.replace(arrays[_name(path)])) for path, v in nnx.to_flat_state(skeleton)]
    )


def _by_name(state: nnx.State) -> dict[str, Any]:
    return {_name(path): jax.tree.leaves(v)[0] for path, v in nnx.to_flat_state(state)}


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
