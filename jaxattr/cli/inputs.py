"""What the command line is given: photographs and classes, by name."""

import difflib
import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click

from jaxattr.cli.errors import reason
from jaxattr.cli.files import is_own
from jaxattr.data.images import SUFFIXES

EXAMPLES = "skimage:"
"""What the name of one of scikit-image's own photographs starts with, as `skimage:chelsea`."""


SEEDS = click.IntRange(-(2**31), 2**32 - 1)
"""Of which JAX keeps 32 bits."""


class Photograph(NamedTuple):
    """A photograph: the name that it was asked for by, and its file."""

    name: str
    path: Path


def find_photographs(given: Iterable[str]) -> list[Photograph]:
    """List the photographs that are asked for, each once.

    Args:
        given: files; folders, for the images in them and in the folders below, ordered by name;
            patterns as of a shell (`cats/*.jpg`, `**/*.png`); `skimage:` and the name of a
            photograph that scikit-image carries. What `jaxattr explain` wrote is left out of
            folders and patterns.

    Raises:
        ValueError: if there is no such file, or no image in a folder. The message is one sentence
            and has the nearest names.
        ModuleNotFoundError: if scikit-image is asked for and not installed.
    """
    found = {p.path.resolve(): p for name in given for p in _photographs(name)}
    return list(found.values())


def _photographs(name: str) -> Iterator[Photograph]:
    if name.startswith(EXAMPLES):
        yield Photograph(name, _example(name.removeprefix(EXAMPLES)))
        return
    path = Path(name)
    if not name.strip():
        raise ValueError("the name of an image is empty")
    try:
        files = [path] if path.is_file() else _below(path) if path.is_dir() else _matches(name)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {reason(error)}") from None
    if not files and path.exists():
        listed = ", ".join(SUFFIXES)
        raise ValueError(f"there is no image in {name}: no name that ends with {listed}")
    if not files:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"there is no file {name}{_did_you_mean(path.name, siblings)}")
    yield from (Photograph(str(file), file) for file in files)


def _below(folder: Path) -> list[Path]:
    images = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    seen = (p for p in images if not any(q.startswith(".") for q in p.relative_to(folder).parts))
    return sorted(p for p in seen if not is_own(p))


def _matches(pattern: str) -> list[Path]:
    paths = map(Path, sorted(glob.glob(pattern, recursive=True)))
    return [p for p in paths if p.is_file() and not is_own(p)]


def _example(name: str) -> Path:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            f"{EXAMPLES}{name} is a photograph of scikit-image, which is not installed: "
            'pip install "jaxattr[demo]"',
            name="skimage",
        )
    folder = Path(package.origin).parent / "data"
    known = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg")}
    if name not in known:
        hint = _did_you_mean(name, known) or f"; it has {', '.join(known)}"
        raise ValueError(f"scikit-image carries no photograph {name!r}{hint}")
    return known[name]


def find_class(text: str, classes: Sequence[str]) -> int:
    """Return the index of a class.

    Args:
        text: its index, its name in any case, or a part of it that no other name has.
        classes: the names in the order of the logits.

    Raises:
        ValueError: if it is out of range, unknown (the nearest names are given), or it could be
            several classes (they are listed with their indices).

    Example:
        >>> find_class("tabby", ("tabby", "tiger cat")), find_class(" 1", ("tabby", "tiger cat"))
        (0, 1)
    """
    text = text.strip()
    if not text:
        raise ValueError("--target names no class")
    if re.fullmatch("-?[0-9]+", text):
        index = int(text[:20])
        if not 0 <= index < len(classes):
            raise ValueError(
                f"class {text[:20]} is out of range: the classes are 0 to {len(classes) - 1}"
            )
        return index
    wanted, names = text.casefold(), [c.casefold() for c in classes]
    found = [i for i, name in enumerate(names) if name == wanted]
    found = found or [i for i, name in enumerate(names) if wanted in name]
    if len(found) > 1:
        listed = ", ".join(f"{classes[i]} ({i})" for i in found[:8])
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise ValueError(f"{text!r} could be {listed}{more}: give the whole name or the index")
    if not found:
        raise ValueError(f"there is no class {text!r}{_did_you_mean(wanted, names)}")
    return found[0]


def read_classes(path: str) -> list[str]:
    """Read the names of classes, one in a line.

    Raises:
        ValueError: if there is no such file, or it is not text.
    """
    try:
        return [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except OSError as error:
        raise ValueError(f"the classes in {path} cannot be read: {reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text of class names, one in a line") from None


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(near)}?" if near else ""
