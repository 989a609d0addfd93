"""Image files as arrays."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def read_image(path: Path) -> np.ndarray:
    """Read a file as uint8 `(H, W, 3)`, upright.

    Raises:
        ValueError: if it is no image, a truncated one, or its values have no known range. The
            message names the file.
        FileNotFoundError: if there is none.
    """
    return decode_image(path.read_bytes(), str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the content of a file, as `read_image` does."""
    from PIL import Image, UnidentifiedImageError  # metrics need no images

    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(to_rgb(image))
    except UnidentifiedImageError:  # its own message has an address in memory
        raise ValueError(
            f"{name} cannot be read as an image: Pillow knows no such format"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from None


def to_rgb(image: Image.Image, *, background: str | None = None) -> Image.Image:
    """Turn an image upright and convert it to RGB.

    16 bits become 8; a warning says when only the lowest 12 of them are used.

    Args:
        image: of any mode and size.
        background: the color behind what is transparent, as Pillow names colors. By default
            transparency is dropped, and pixels have the colors that no viewer shows.

    Raises:
        TypeError: if it is no PIL image.
        ValueError: if its values have no known range (modes I and F), or there is no such color.
    """
    from PIL import Image, ImageColor, ImageOps

    if not isinstance(image, Image.Image):
        raise TypeError(
            f"preprocess takes a PIL image, but got {type(image).__name__}: "
            "use PIL.Image.open(path) or PIL.Image.fromarray(array)"
        )
    if image.mode in ("I", "F"):
        raise ValueError(
            f"the values of an image of mode {image.mode!r} have no known range: "
            "scale them to 0-255 and convert the image to mode 'L' or 'RGB'"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling
        upright = _eight_bits(np.asarray(upright))
    if is_transparent(upright):
        upright = upright.convert("RGBA")  # of a palette, Pillow warns in one step
        if background is not None:
            ground = Image.new("RGBA", upright.size, ImageColor.getrgb(background))
            upright = Image.alpha_composite(ground, upright)
    return upright.convert("RGB")


def is_transparent(image: Image.Image) -> bool:
    """Whether an image says how transparent its pixels are."""
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info


def _eight_bits(values: np.ndarray) -> Image.Image:
    from PIL import Image

    if 255 < values.max() < 4096:
        warnings.warn(
            f"the largest value of the 16-bit image is {values.max()}, as of 12-bit data: it is "
            "nearly black; multiply its values by 16",
            stacklevel=3,
        )
    return Image.fromarray((values.astype(np.float32) / 257).round().astype(np.uint8))


def read_indices(path: Path) -> np.ndarray:
    """Read a segmentation, int `(H, W)`: the values of a PNG with one channel or a palette.

    Raises:
        ValueError: if it is no such image. The message names the file.
        FileNotFoundError: if there is none.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None
    if pixels.ndim != 2:
        raise ValueError(f"{path} is no segmentation: its pixels have {pixels.shape[2]} channels")
    return pixels.astype(int)


def as_pil(image: np.ndarray) -> Image.Image:
    """Return an image uint8 `(H, W, 3)` as Pillow has it."""
    from PIL import Image

    return Image.fromarray(image)
