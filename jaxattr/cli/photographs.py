"""Photographs as a model's input, one after the other."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from jaxattr.cli.errors import reason
from jaxattr.cli.files import Origin
from jaxattr.cli.inputs import Photograph

if TYPE_CHECKING:  # Flax takes seconds to import
    from jaxattr.models import PlainResize, Preprocess


class Work(NamedTuple):
    """A photograph to be explained.

    Attributes:
        name: of what is written, without a suffix.
        photograph: where it is from.
        origin: what will be written of it, and of what it is made.
        displayed: as the model sees it, uint8 `(H, W, 3)`.
        x: the model's input, `(H, W, 3)`.
    """

    name: str
    photograph: Photograph
    origin: Origin
    displayed: np.ndarray
    x: np.ndarray


def works(
    photographs: Iterable[tuple[str, Photograph]],
    preprocess: "Preprocess | PlainResize",
    settings: Origin,
    *,
    background: str | None,
    skip: Callable[[str], None],
    is_done: Callable[[str, Origin], bool],
) -> Iterator[Work]:
    """Read photographs that are not yet explained, no more of them than are asked for.

    Args:
        photographs: with the names of what is written for them.
        preprocess: from a PIL image to the model's input.
        settings: by which they are explained.
        background: the color behind what is transparent.
        skip: called with a sentence on each photograph that cannot be read.
        is_done: whether what is written under a name is of this origin.
    """
    for name, photograph in photographs:
        try:
            data = photograph.path.read_bytes()
            made = {
                "photograph": str(photograph.path.resolve()),
                "sha256": hashlib.sha256(data).hexdigest(),
                **settings,
            }
            if not is_done(name, made):
                yield Work(name, photograph, made, *_read(photograph, data, preprocess, background))
        except OSError as error:
            skip(f"{photograph.name} cannot be read: {reason(error)}")
        except ValueError as error:
            skip(f"{photograph.name} {error}")


def _read(
    photograph: Photograph,
    data: bytes,
    preprocess: "Preprocess | PlainResize",
    background: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model sees and its input, and print warnings on the way."""
    from jaxattr.data.images import is_transparent, to_rgb

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        image = _decode(data)
        if background is None and is_transparent(image):
            warnings.warn("its transparency is dropped; --background white shows it", stacklevel=1)
        try:
            rgb = to_rgb(image, background=background)
        except ValueError as error:
            raise ValueError(f"cannot be used: {error}") from None
    for warning in warned:
        click.echo(f"Warning: {photograph.name}: {warning.message}", err=True)
    return np.asarray(preprocess.display(rgb)), preprocess(rgb)


def _decode(data: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return image
    except UnidentifiedImageError:
        raise ValueError("is no image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"is refused: {error}") from None
    except Exception as error:  # Pillow's readers raise anything for a damaged file
        raise ValueError(f"cannot be read: {reason(error)}") from None


def check_color(color: str | None) -> None:
    """Raise `ValueError` unless Pillow knows a color by this name."""
    try:
        ImageColor.getrgb("white" if color is None else color)
    except ValueError:
        raise ValueError(
            f"--background {color!r} is no color: give a name or digits, `white` or `#8a2be2`"
        ) from None
