"""From a PIL image to the input of a model, as torchvision's `ImageClassification` does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(NamedTuple):
    """Resize the short side, crop the center, normalize each channel.

    Call it on a PIL image of any mode and size for the model's input, a float32 array of shape
    `(crop_size, crop_size, 3)`: `(value / 255 - mean) / std`. `display` gives the photograph that
    the model sees.

    Differs from torchvision: an image that carries an EXIF orientation is turned upright first,
    as every viewer shows it.

    Attributes:
        resize_size: Length of the short side in pixels, before the crop.
        crop_size: Side of the square taken from the center, in pixels.
        mean: Mean of each channel, on the 0-1 scale.
        std: Standard deviation of each channel, on the 0-1 scale.
        resample: How to interpolate; all filters are antialiased.
        rounding: Where the crop starts when half a pixel too many is on each side: `round`
            (to the even pixel) is torchvision's, `math.floor` leaves the odd one bottom and right.

    >>> preprocess = Preprocess(resize_size=256, crop_size=224)
    >>> preprocess(Image.new("L", (640, 480))).shape
    (224, 224, 3)
    """

    resize_size: int
    crop_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resample: Image.Resampling = Image.Resampling.BILINEAR
    rounding: Callable[[float], int] = round

    def display(self, image: Image.Image) -> Image.Image:
        """Return the photograph the model sees: upright, RGB, resized and cropped."""
        resized = resize_short_side(to_rgb(image), self.resize_size, self.resample)
        return crop_center(resized, self.crop_size, self.rounding)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the model's input `(crop_size, crop_size, 3)`, normalized, float32."""
        values = np.asarray(self.display(image), np.float32) / 255
        return (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright and convert it to RGB; transparency is dropped.

    Raises:
        TypeError: If it is no PIL image.
        ValueError: If its values have no known range (modes I and F).
    """
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
        upright = Image.fromarray((np.asarray(upright, np.float32) / 257).round().astype(np.uint8))
    if "transparency" in upright.info:  # Pillow warns when this is lost in one step
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def resize_short_side(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the short side to `size`; the long side is rounded down, as torchvision does."""
    width, height = image.size
    short = min(width, height)
    return image.resize((size * width // short, size * height // short), resample)


def crop_center(
    image: Image.Image, size: int, rounding: Callable[[float], int] = round
) -> Image.Image:
    """Cut the square of side `size` out of the center; outside the image is black."""
    left, top = (rounding((length - size) / 2) for length in image.size)
    return image.crop((left, top, left + size, top + size))
