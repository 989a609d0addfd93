"""The names of what is written, and writing it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any

from jaxattr.cli.inputs import EXAMPLES


def output_names(photographs: Sequence[str]) -> list[str]:
    """Return the names of what is written for each photograph, without a suffix.

    Raises:
        ValueError: if two of them would overwrite each other.

    Example:
        >>> output_names(["cats/one.jpg", "skimage:chelsea"])
        ['one', 'chelsea']
    """
    seen: dict[str, str] = {}
    for photograph in photographs:
        stem = Path(photograph.removeprefix(EXAMPLES)).stem
        if stem in seen:
            raise ValueError(
                f"the maps of {seen[stem]} and {photograph} would have the same name, {stem!r}: "
                "explain them one after the other, with another --out"
            )
        seen[stem] = photograph
    return list(seen)


def writable_folder(out: str) -> Path:
    """Make a folder, and see whether one can write to it before anything is computed."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"cannot write to the folder {out}: {error.strerror}") from None


def write(path: Path, save: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name first, so that no half of one is left behind."""
    with NamedTemporaryFile(dir=path.parent, suffix=path.suffix, delete=False) as stream:
        draft = Path(stream.name)
        try:
            save(stream)
            stream.close()
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
