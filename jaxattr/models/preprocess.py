"""From a PIL image to the input of a model, as torchvision's `ImageClassification` does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxattr.data.geometry import Geometry
from jaxattr.data.images import to_rgb

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
        square: Whether the long side is resized to `resize_size` too, so that the photograph is
            squeezed instead of cropped.

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
    square: bool = False

    def display(self, image: Image.Image) -> Image.Image:
        """Return the photograph the model sees: upright, RGB, resized and cropped."""
        upright = to_rgb(image)
        height, width = self._sides((upright.height, upright.width))
        resized = upright.resize((width, height), self.resample)
        return crop_center(resized, self.crop_size, self.rounding)

    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Return where the pixels of a photograph of height and width `size` lie in the input."""
        height, width = self._sides(size)
        top, left = (self.rounding((length - self.crop_size) / 2) for length in (height, width))
        crop = (top, left, top + self.crop_size, left + self.crop_size)
        return Geometry.resized(size, (height, width), crop)

    def _sides(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width after the resize; the long side is rounded down."""
        if self.square:
            return (self.resize_size, self.resize_size)
        height, width = (self.resize_size * length // min(size) for length in size)
        return (height, width)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the model's input `(crop_size, crop_size, 3)`, normalized, float32."""
        values = np.asarray(self.display(image), np.float32) / 255
        return (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


class PlainResize(NamedTuple):
    """Resize without antialiasing, and subtract a mean: TorchRay's way for VOC and COCO.

        input = 255 (bilinear(value / 255) - mean)

    The short side becomes `size`, and the long side keeps its share, rounded down; nothing is
    cropped, so that inputs differ in shape unless `square`.

    Attributes:
        size: Length of the short side in pixels.
        square: Whether the long side is resized to `size` too, as for RISE.
        mean: Mean of each channel, on the 0-1 scale.

    >>> PlainResize(square=True)(Image.new("RGB", (500, 375))).shape
    (224, 224, 3)
    >>> PlainResize().geometry((375, 500)).input_size
    (224, 298)

    Reference:
        TorchRay (Fong, Patrick and Vedaldi, ICCV 2019).
    """

    size: int = 224
    square: bool = False
    mean: tuple[float, float, float] = (123.68 / 255, 116.779 / 255, 103.939 / 255)

    def display(self, image: Image.Image) -> Image.Image:
        """Return the photograph the model sees: upright, RGB, resized."""
        pixels = self._resized(image)
        return Image.fromarray((255 * pixels).round().clip(0, 255).astype(np.uint8))

    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Return where the pixels of a photograph of height and width `size` lie in the input."""
        short = min(size)
        to = [self.size if self.square else int(self.size * length / short) for length in size]
        return Geometry.resized(size, (to[0], to[1]), None)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the model's input, float32 `(h, w, 3)`."""
        return 255 * (self._resized(image) - np.asarray(self.mean, np.float32))

    def _resized(self, image: Image.Image) -> np.ndarray:
        pixels = np.asarray(to_rgb(image), np.float32) / 255
        geometry = self.geometry(pixels.shape[:2])
        # the maps of an input as large as the photograph, brought to the pixels of the input
        back = Geometry.resized(geometry.input_size, geometry.size, None)
        return np.moveaxis(back.to_photograph(np.moveaxis(pixels, -1, 0)), 0, -1)


def crop_center(
    image: Image.Image, size: int, rounding: Callable[[float], int] = round
) -> Image.Image:
    """Cut the square of side `size` out of the center; outside the image is black."""
    left, top = (rounding((length - size) / 2) for length in image.size)
    return image.crop((left, top, left + size, top + size))
