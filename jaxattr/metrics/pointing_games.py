"""Pointing games: whether a map points at the object, and how much of it lies there."""

import jax.numpy as jnp

from jaxattr.image.maps import heatmap
from jaxattr.metrics.alignment import align
from jaxattr.metrics.arguments import booleans, check_range, real
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array


def pointing_game(
    attribution: Array,
    mask: Array,
    *,
    sizes: Array | None = None,
    tolerance: float = 15,
    reduce: Reduction = heatmap,
) -> Score:
    """Test whether the largest attribution lies on the object, or close to it.

    The map is resized to the image (bilinear, pixel centers at half-integers); of its maxima the
    first in reading order counts. It hits if a pixel of the mask is less than `tolerance` away.

    Args:
        attribution: maps `(B, h, w)` or `(B, h, w, C)` of any resolution.
        mask: where the class is, bool `(B, H, W)`, in the original image.
        sizes: heights and widths of the images, int `(B, 2)`, where `mask` is padded to a
            common shape; no other size needs a new compilation. What a mask has outside them does
            not count.
        tolerance: in pixels of the image.
        reduce: how the channels of an attribution become one number.

    Returns:
        1 for a hit, 0 for a miss; no score where the mask is empty or the map not finite. See
        `class_means` for the accuracy that is reported.

    Raises:
        ValueError: if `mask` is not bool, or not one for every map, or a size does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> mask = jnp.zeros((2, 40, 40), bool).at[:, 0, 0].set(True)
        >>> maps = jnp.zeros((2, 40, 40)).at[0, 14, 5].set(1).at[1, 9, 12].set(1)
        >>> pointing_game(maps, mask).score.tolist()  # 14^2 + 5^2 = 221, 9^2 + 12^2 = 225
        [1.0, 0.0]

    Reference:
        Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016, section 4.1, as
        in TorchRay (Fong, Patrick and Vedaldi, ICCV 2019).
    """
    found = align(attribution, mask, sizes, reduce)
    batch, height, width = found.mask.shape
    best = found.scores.reshape(batch, height * width).argmax(1)
    points = jnp.stack(jnp.unravel_index(best, (height, width)), -1)
    hit = point_hits(points, found.mask, tolerance=tolerance)
    return scored(hit.score, hit.valid & found.valid)


def point_hits(points: Array, mask: Array, *, tolerance: float = 15) -> Score:
    """Test whether points lie on the object, or less than `tolerance` away from a pixel of it.

        hit = 1[ min over (r', c') in mask of (r' - r)^2 + (c' - c)^2 < tolerance^2 ]

    Args:
        points: rows and columns `(B, 2)`, whole or not.
        mask: bool `(B, H, W)`.
        tolerance: in pixels; the inequality is strict, so that 0 never hits.

    Returns:
        1 for a hit, 0 for a miss; no score where the mask is empty or the point not finite.

    Raises:
        ValueError: if `mask` is not bool, shapes do not fit or `tolerance` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> mask = jnp.zeros((1, 9, 9), bool).at[0, 2, 2].set(True)
        >>> [point_hits(jnp.array([p]), mask, tolerance=3).score.item() for p in ([4, 4], [2, 5])]
        [1.0, 0.0]

    Reference:
        Zhang, Lin, Brandt, Shen and Sclaroff, Top-down neural attention by excitation backprop,
        ECCV 2016, section 4.1.
    """
    check_range("tolerance", tolerance, 0)
    points = real("points", points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points has shape {points.shape}; expected a row and a column for each")
    mask = booleans("mask", mask, (len(points), "height", "width"))
    rows, columns = (jnp.arange(n) for n in mask.shape[1:])
    r, c = ((a - points[:, i, None]) ** 2 for i, a in enumerate((rows, columns)))
    near = r[:, :, None] + c[:, None, :] < tolerance**2
    known = mask.any((1, 2)) & jnp.isfinite(points).all(1)
    return scored((near & mask).any((1, 2)).astype(float), known)


def energy_pointing_game(
    attribution: Array,
    mask: Array,
    *,
    sizes: Array | None = None,
    cover: float = 0.5,
    signed: bool = False,
    reduce: Reduction = heatmap,
) -> Score:
    """Return how much of the positive attribution lies on the object.

        score = sum_{p in mask} max(a_p, 0) / sum_p max(a_p, 0)

    Higher is better. Laws: a uniform map scores the mask's share of the image; a map inside the
    mask scores 1.

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: where the class is, bool `(B, H, W)`. The paper takes images with one box.
        sizes: heights and widths of the images, as for `pointing_game`.
        cover: images of which the mask covers more than this have no score: half in the paper.
        signed: whether `a_p` stands in both sums instead of its positive part, as eq. 11 of TR-GBP
            has it. Where evidence against the class nearly equals that for it, such a share is any
            number.
        reduce: how the channels of an attribution become one number.

    Returns:
        The share; no score where the mask is empty or too large, or the map not finite or nowhere
        positive, of signed maps where the sum is zero.

    Raises:
        ValueError: if `mask` is not bool, or not one for every map.

    Example:
        >>> import jax.numpy as jnp
        >>> mask = jnp.zeros((1, 4, 4), bool).at[:, :2, :2].set(True)
        >>> energy_pointing_game(jnp.ones((1, 4, 4)), mask).score.item()
        0.25

    Reference:
        Wang et al., Score-CAM, CVPR workshops 2020, section 4.3.

    Differs from TR-GBP's eq. 11, of which `signed=True` is the letter: Score-CAM's maps, for which
    the game was made, have no negative values, and a share of their positive part stays one.
    """
    check_range("cover", cover, 0, 1)
    found = align(attribution, mask, sizes, reduce)
    energy = found.scores if signed else jnp.maximum(found.scores, 0)
    energy = jnp.where(found.inside, energy, 0)
    within, total = (e.sum((1, 2)) for e in (energy * found.mask, energy))
    share = found.mask.sum((1, 2)) / found.inside.sum((1, 2))
    valid = (share > 0) & (share <= cover) & (total != 0) & found.valid
    return scored(within / jnp.where(total != 0, total, 1), valid)
