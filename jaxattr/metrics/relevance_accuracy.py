"""How much of a map, or of its largest values, lies in a mask of the truth."""

import jax
import jax.numpy as jnp

from jaxattr.contract import check_positive
from jaxattr.image.maps import heatmap
from jaxattr.image.order import descending
from jaxattr.metrics.alignment import align
from jaxattr.metrics.pointing_games import energy_pointing_game
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Score, scored
from jaxattr.metrics.roc import roc_auc
from jaxattr.types import Array


def relevance_mass_accuracy(
    attribution: Array, mask: Array, *, sizes: Array | None = None, reduce: Reduction = heatmap
) -> Score:
    """Return how much of the positive relevance lies in the mask.

        score = sum_{p in mask} max(a_p, 0) / sum_p max(a_p, 0)

    Higher is better. It is `energy_pointing_game` for masks of any size.

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: the truth, bool `(B, H, W)`.
        sizes: heights and widths of the images, as for `pointing_game`.
        reduce: how the channels of an attribution become one number, the paper's pooling; what is
            negative then does not count.

    Returns:
        The share; no score where the mask is empty, or the map not finite or nowhere positive.

    Raises:
        ValueError: if `mask` is not bool, or not one for every map.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[3.0, 1.0], [-2.0, 0.0]]])
        >>> relevance_mass_accuracy(a, a > 2).score.item()
        0.75

    Reference:
        Arras, Osman and Samek, CLEVR-XAI, Information Fusion 81, 2022, section 3.3.
    """
    return energy_pointing_game(attribution, mask, sizes=sizes, cover=1, reduce=reduce)


def relevance_rank_accuracy(
    attribution: Array, mask: Array, *, sizes: Array | None = None, reduce: Reduction = heatmap
) -> Score:
    """Return how many of as many largest values as the mask has pixels lie in the mask.

        score = | P_top k  and  mask | / k,    k = |mask|

    Higher is better. Laws: unchanged by an increasing function of the map; a map that is larger in
    the mask than elsewhere scores 1.

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: the truth, bool `(B, H, W)`.
        sizes: heights and widths of the images, as for `pointing_game`.
        reduce: how the channels of an attribution become one number.

    Returns:
        The share; no score where the mask is empty or the map not finite.

    Raises:
        ValueError: if `mask` is not bool, or not one for every map.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[3.0, 1.0], [-2.0, 0.0]]])
        >>> relevance_rank_accuracy(a, a % 2 == 1).score.item()
        1.0

    Reference:
        Arras, Osman and Samek, CLEVR-XAI, Information Fusion 81, 2022, section 3.3.
    """
    found = align(attribution, mask, sizes, reduce)
    k = found.mask.sum((1, 2))
    hits = (found.mask & (descending(found.scores) < k[:, None, None])).sum((1, 2))
    return scored(hits / jnp.where(k > 0, k, 1), found.valid & (k > 0))


def top_k_intersection(
    attribution: Array,
    mask: Array,
    *,
    top: int = 1000,
    sizes: Array | None = None,
    reduce: Reduction = heatmap,
) -> Score:
    """Return how many of the largest values lie in the mask.

        score = | P_top k  and  mask | / k

    Higher is better.

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: the truth, bool `(B, H, W)`.
        top: k, a number of pixels.
        sizes: heights and widths of the images, as for `pointing_game`.
        reduce: how the channels of an attribution become one number.

    Returns:
        The share; no score where the mask is empty, the image has fewer than k pixels, or the map
        is not finite.

    Raises:
        ValueError: if `mask` is not bool, not one for every map, or smaller than k pixels.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[3.0, 1.0], [-2.0, 0.0]]])
        >>> top_k_intersection(a, a > 2, top=2).score.item()
        0.5

    Reference:
        Theiner, Mueller-Budack and Ewerth, Interpretable semantic photo geolocation, WACV 2022.
    """
    check_positive("top", top)
    found = align(attribution, mask, sizes, reduce)
    pixels = found.mask.shape[1] * found.mask.shape[2]
    if top > pixels:
        raise ValueError(f"top is {top}; the masks have {pixels} pixels")
    hits = (found.mask & (descending(found.scores) < top)).sum((1, 2))
    known = found.mask.any((1, 2)) & (found.inside.sum((1, 2)) >= top)
    return scored(hits / top, found.valid & known)


def attribution_auc(
    attribution: Array, mask: Array, *, sizes: Array | None = None, reduce: Reduction = heatmap
) -> Score:
    """Return the area under the ROC curve of a map that detects the pixels of the mask.

    Higher is better; .5 is chance. Law: unchanged by an increasing function of the map.

    Args:
        attribution: maps of any resolution, resized to the mask as for `pointing_game`.
        mask: the truth, bool `(B, H, W)`.
        sizes: heights and widths of the images, as for `pointing_game`.
        reduce: how the channels of an attribution become one number.

    Returns:
        The area, equal values counting half; no score where the mask is empty or the whole image,
        or the map not finite.

    Raises:
        ValueError: if `mask` is not bool, or not one for every map.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[0.1, 0.4], [0.4, 0.8]]])
        >>> attribution_auc(a, jnp.array([[[False, False], [True, True]]])).score.item()
        0.875

    Reference:
        Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27(8), 2006.
    """
    found = align(attribution, mask, sizes, reduce)
    area = lambda a, mask, inside: roc_auc(a.ravel(), mask.ravel(), valid=inside.ravel())
    return scored(jax.vmap(area)(found.scores, found.mask, found.inside), found.valid)
