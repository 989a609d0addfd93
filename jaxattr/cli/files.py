"""The names of what is written, what a file says of its origin, and writing it."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image

from jaxattr.cli.errors import reason
from jaxattr.cli.interrupts import uninterrupted

FIGURE = ".figure.png"
"""What the name of a figure ends with."""

Origin: TypeAlias = Mapping[str, Any]
"""What a file was made of, by which options; `"photograph"` is the path of its photograph."""

_MARK = "jaxattr"
_DRAFT = ".jaxattr-"
_STALE = 3600  # seconds, after which nobody writes a draft any more


def output_names(photographs: Sequence[Path], folder: Path) -> list[str]:
    """Return the names of what is written for each photograph, without a suffix.

    It is the photograph's own, behind those of as many folders above as it takes to tell it from
    other photographs, of this run or of an earlier one into the same folder.

    Example:
        >>> output_names([Path("a/one.jpg"), Path("b/one.jpg"), Path("b/two.png")], Path("maps"))
        ['one', 'b-one', 'two']
    """
    names: dict[str, str] = {}  # in one case, for file systems that know no other
    for photograph in map(Path.resolve, photographs):
        for name in _candidates(photograph):
            owner = (origin(folder / f"{name}{FIGURE}") or {}).get("photograph")
            if name.casefold() not in names and owner in (None, str(photograph)):
                names[name.casefold()] = name
                break
    return list(names.values())


def _candidates(photograph: Path) -> Iterator[str]:
    folders = [part.strip("/\\:") for part in photograph.parent.parts]
    for depth in range(len(folders)):
        above = folders[len(folders) - depth :]
        yield "-".join([*above, photograph.stem])
        if depth:
            yield "-".join([*above, photograph.name])
    yield from (f"{photograph.stem}-{i}" for i in count(2))


def map_file(name: str, title: str) -> str:
    """Return the name of the file of a map: `cat.smoothgrad-saliency.npy`."""
    return f"{name}.{title.replace(':', '-')}.npy"


def origin(file: Path) -> Origin | None:
    """Return what a figure or map that `jaxattr explain` wrote was made of, None for any other."""
    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                stream.seek(math.prod(shape) * dtype.itemsize, os.SEEK_CUR)
                found = json.loads(np.load(stream).item())
        else:
            with Image.open(file) as image:
                found = json.loads(image.info[_MARK])
    except Exception:  # a file of another origin may hold anything
        return None
    return found if isinstance(found, dict) else None


def is_own(file: Path) -> bool:
    """Whether a file is a figure or a map that `jaxattr explain` wrote."""
    return file.name.endswith((FIGURE, ".npy")) and origin(file) is not None


def save_map(a: np.ndarray, made: Origin) -> Callable[[IO[bytes]], None]:
    """Return what writes a map for `numpy.load`, and its origin behind it as a second array."""

    def save(stream: IO[bytes]) -> None:
        np.save(stream, a)
        np.save(stream, np.array(json.dumps(made).encode()))

    return save


def text_of(made: Origin) -> dict[str, str]:
    """Return the origin of a figure as the text that a PNG carries."""
    return {_MARK: json.dumps(made)}


def writable_folder(out: str) -> Path:
    """Make a folder, and see whether one can write to it before anything is computed."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
        for draft in folder.glob(f"{_DRAFT}*"):
            if time.time() - draft.stat().st_mtime > _STALE:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to the folder {out}: {reason(error)}") from None
    return folder


def check_replaceable(file: Path, inputs: frozenset[Path], *, overwrite: bool) -> None:
    """Raise `ValueError` if a file that would be written is an input, or somebody else's."""
    if file.resolve() in inputs:
        raise ValueError(f"{file} is read and would be written over: give another --out")
    if not overwrite and file.exists() and origin(file) is None:
        raise ValueError(
            f"{file} is there and was not written by `jaxattr explain`: give another --out, or "
            "--overwrite"
        )


def write(path: Path, save: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name first, so that no half of one is left behind.

    Raises:
        ValueError: if it cannot be written, as on a full disk; the message names the file.
    """
    try:
        with (
            uninterrupted(),
            NamedTemporaryFile(dir=path.parent, prefix=_DRAFT, delete=False) as stream,
        ):
            draft = Path(stream.name)
            try:
                save(stream)
                stream.close()
                draft.chmod(0o644)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {reason(error)}") from error
