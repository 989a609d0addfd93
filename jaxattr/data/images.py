"""Image files as arrays."""

from __future__ import annotations

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
        ValueError: if it is no image, or a truncated one. The message names the file.
        FileNotFoundError: if there is none.
    """
    return decode_image(path.read_bytes(), str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the content of a file, as `read_image` does."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # metrics need no images

    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:  # its own message has an address in memory
        raise ValueError(
            f"{name} cannot be read as an image: Pillow knows no such format"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from None


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
