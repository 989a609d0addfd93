"""Maps brought to the size of the masks that they are compared with."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxattr.image.resize import inside, resize, resize_each
from jaxattr.metrics.arguments import booleans, fits_not, image_sizes
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.types import Array


class Aligned(NamedTuple):
    """Maps in the size of their masks.

    Attributes:
        scores: `(B, H, W)`, -inf outside the image.
        mask: the masks, false outside the image.
        inside: which pixels belong to the image, bool `(B, H, W)`.
        valid: whether all of a map is finite, and its image of a size that fits the mask, `(B,)`.
    """

    scores: Array
    mask: Array
    inside: Array
    valid: Array


def align(attribution: Array, mask: Array, sizes: Array | None, reduce: Reduction) -> Aligned:
    """Reduce the channels of maps, and resize them to the masks of the images.

    Args:
        attribution: maps `(B, h, w)` or `(B, h, w, C)` of any resolution.
        mask: bool `(B, H, W)`.
        sizes: heights and widths of the images, int `(B, 2)`, where `mask` is padded to a common
            shape; without them every image fills its mask.
        reduce: how the channels of an attribution become one number.

    Returns:
        The maps, resized bilinearly with pixel centers at half-integers.

    Raises:
        ValueError: if there is no mask for every map, its dtype is not bool, or a size does not
            fit.
    """
    scores = reduced(attribution, reduce)
    mask = booleans("mask", mask, (len(scores), "height", "width"))
    size = mask.shape[1], mask.shape[2]
    if sizes is None:
        everywhere = jnp.ones(mask.shape, bool)
        return Aligned(resize(scores, size), mask, everywhere, finite(scores))
    sizes = image_sizes(sizes, mask)
    image = inside(size, sizes)
    enlarged = jnp.where(image, resize_each(scores, size, sizes), -jnp.inf)
    return Aligned(enlarged, mask & image, image, finite(scores) & ~fits_not(sizes, size))
