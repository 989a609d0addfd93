"""What the command line is given: photographs and classes, by name."""

import difflib
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, UnidentifiedImageError

EXAMPLES = "skimage:"
"""What the name of one of scikit-image's own photographs starts with, as `skimage:chelsea`."""


def open_photograph(name: str) -> Image.Image:
    """Read a photograph.

    Args:
        name: the path of a file, or `skimage:` and the name of a photograph that scikit-image
            carries.

    Raises:
        ValueError: if there is no such file or photograph, or it cannot be read as an image. The
            message is one sentence and has the nearest names.
        ModuleNotFoundError: if scikit-image is asked for and not installed.
    """
    path = _example(name.removeprefix(EXAMPLES)) if name.startswith(EXAMPLES) else Path(name)
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"there is no file {name}{_did_you_mean(path.name, siblings)}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is no image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is refused: {error}") from None
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG is SyntaxError
        raise ValueError(f"{name} cannot be read: {_reason(error)}") from None


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
        >>> find_class("tabby", ("tabby", "tiger cat")), find_class("1", ("tabby", "tiger cat"))
        (0, 1)
    """
    if text.lstrip("-").isdecimal():
        if not 0 <= int(text) < len(classes):
            raise ValueError(
                f"class {text} is out of range: the classes are 0 to {len(classes) - 1}"
            )
        return int(text)
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


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
