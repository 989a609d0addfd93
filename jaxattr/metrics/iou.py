"""Intersection over union: how well the region that a map marks fits the object."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxattr.image.maps import heatmap
from jaxattr.metrics.alignment import align
from jaxattr.metrics.arguments import booleans, real
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Score, Segmentation, scored
from jaxattr.types import Array

Region: TypeAlias = Callable[[Array], Array]
"""From maps `(B, H, W)`, -inf where a pixel does not count, to the pixels that they mark."""


def positive_region(scores: Array) -> Array:
    """Mark the pixels with evidence for the class."""
    return scores > 0


def above_mean_region(scores: Array) -> Array:
    """Mark the pixels with at least the mean evidence for the class of those that have any.

    What is equal to the mean up to rounding is marked: all the evidence of a flat or binary map.

    Args:
        scores: maps `(B, H, W)`, -inf where a pixel does not count.

    Returns:
        Bool `(B, H, W)`.
    """
    scores = real("scores", scores)
    evidence = scores > 0
    least = jnp.where(evidence, scores, jnp.inf).min((1, 2), keepdims=True, initial=jnp.inf)
    # The sum of what exceeds the least has no rounding where there is no excess.
    excess = jnp.where(evidence, scores - least, 0).sum((1, 2), keepdims=True)
    mean = least + excess / jnp.maximum(evidence.sum((1, 2), keepdims=True), 1)
    return evidence & (scores >= mean * (1 - 8 * jnp.finfo(scores.dtype).eps))


def localization_iou(
    attribution: Array,
    mask: Array,
    *,
    sizes: Array | None = None,
    region: Region = positive_region,
    reduce: Reduction = heatmap,
) -> Score:
    """Compare the pixels that a map marks with the boxes of its class.

        score = |region & mask| / |region | mask|

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: the union of the boxes, bool `(B, H, W)`: see `box_masks`.
        sizes: heights and widths of the images, as for `pointing_game`.
        region: maps to the pixels that they mark. RSP reports both `positive_region` and
            `above_mean_region`.
        reduce: how the channels of an attribution become one number.

    Returns:
        The intersection over union; 0 where nothing is marked; no score where the mask is empty
        or the map not finite.

    Raises:
        ValueError: if a mask is not bool, or not one for every map, or a size does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> mask = jnp.array([[[True, True, False, False]]])
        >>> maps = jnp.array([[[0.0, 4.0, 1.0, -1.0]]])
        >>> found = [localization_iou(maps, mask, region=r).score.item()
        ...          for r in (positive_region, above_mean_region)]
        >>> [round(s, 3) for s in found]
        [0.333, 0.5]

    Reference:
        Nam et al., Interpreting deep neural networks with relative sectional propagation,
        AAAI 2021.
    """
    found = segmentation_iou(attribution, mask, sizes=sizes, region=region, reduce=reduce)
    return Score(found.score, found.valid)


def segmentation_iou(
    attribution: Array,
    mask: Array,
    *,
    void: Array | None = None,
    sizes: Array | None = None,
    region: Region = positive_region,
    reduce: Reduction = heatmap,
) -> Segmentation:
    """Compare the pixels that a map marks with those of the object.

        score = |region & mask| / |region | mask|

    and the same for the background, all pixels that are not marked or not in the mask.

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: the object's pixels, bool `(B, H, W)`.
        void: pixels that do not count, bool `(B, H, W)`, such as the 255 of PASCAL VOC.
        sizes: heights and widths of the images, as for `pointing_game`.
        region: maps to the pixels that they mark; `dense_crf(images)` makes them follow the
            edges of the image.
        reduce: how the channels of an attribution become one number.

    Returns:
        The intersection over union of the object and of the background; no score where the mask
        is empty or the map not finite.

    Raises:
        ValueError: if a mask is not bool, or not one for every map, or a size does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> mask = jnp.array([[[True, True, False, False]]])
        >>> found = segmentation_iou(jnp.array([[[0.0, 4.0, -2.0, -1.0]]]), mask)
        >>> found.score.item(), round(found.background.item(), 3)
        (0.5, 0.667)

    Reference:
        Nam et al., Interpreting deep neural networks with relative sectional propagation,
        AAAI 2021; Guillaumin, Kuettel and Ferrari, ImageNet auto-annotation, IJCV 2014.
    """
    found = align(attribution, mask, sizes, reduce)
    mask, counted = found.mask, found.inside
    if void is not None:
        counted &= ~booleans("void", void, mask.shape)
    marked = region(jnp.where(counted, found.scores, -jnp.inf))
    marked = booleans("what region returns", marked, mask.shape) & counted
    valid = (mask & counted).any((1, 2)) & found.valid
    foreground = scored(_iou(marked, mask & counted), valid)
    background = scored(_iou(counted & ~marked, counted & ~mask), valid)
    return Segmentation(foreground.score, background.score, foreground.valid)


def _iou(a: Array, b: Array) -> Array:
    union = (a | b).sum((1, 2))
    return jnp.where(union > 0, (a & b).sum((1, 2)) / jnp.maximum(union, 1), jnp.nan)
