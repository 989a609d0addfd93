"""Whether images with the same explanation have the same prediction: consistency, sufficiency."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from jaxattr.image.maps import heatmap
from jaxattr.metrics.arguments import check_range
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array


def consistency(
    attribution: Array,
    predicted: Array,
    *,
    discretize: Callable[[Array], Array] = jnp.sign,
    reduce: Reduction = heatmap,
) -> Score:
    """Return how many of the images with the same discrete map have the same prediction.

        score_i = | {j != i : d(a_j) = d(a_i), y_j = y_i} | / | {j != i : d(a_j) = d(a_i)} |

    Higher is better. The images of a batch are compared with each other.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        predicted: the model's predictions y, int `(B,)`.
        discretize: d, maps `(B, H, W)` to `(B, ...)` values of which few are possible. Signs of all
            pixels are seldom equal: use it on coarse maps, or give a rule of your own.
        reduce: how the channels become one number.

    Returns:
        Shares; no score for an image whose map no other has, or is not finite.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([1.0, 2.0, 3.0, -1.0]).reshape(4, 1, 1)
        >>> consistency(a, jnp.array([0, 0, 1, 1])).score.tolist()
        [0.5, 0.5, 0.0, nan]

    Reference:
        Dasgupta, Frost and Moshkovitz, Framework for evaluating faithfulness of local explanations,
        ICML 2022, section 3.
    """
    scores = reduced(attribution, reduce)
    codes = discretize(scores)
    codes = codes.reshape(len(scores), -1) if codes.size else jnp.zeros((len(scores), 1))
    alike = lax.map(lambda code: (codes == code).all(1), codes)
    return _agreement(alike, predicted, finite(scores))


def sufficiency(
    attribution: Array, predicted: Array, *, threshold: float = 0.6, reduce: Reduction = heatmap
) -> Score:
    """Return how many of the images with a similar map have the same prediction.

        score_i = | {j != i : d_ij <= r max d, y_j = y_i} | / | {j != i : d_ij <= r max d} |

    with the Euclidean distances `d_ij` of maps divided by their largest magnitudes. Higher is
    better. The images of a batch are compared with each other.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        predicted: the model's predictions y, int `(B,)`.
        threshold: r, a share of the largest distance in the batch.
        reduce: how the channels become one number.

    Returns:
        Shares; no score for an image whose map is like no other's, or not finite.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[1.0, 0.0]], [[1.0, 0.1]], [[0.0, 1.0]]])
        >>> sufficiency(a, jnp.array([0, 0, 1])).score.tolist()
        [1.0, 1.0, nan]

    Reference:
        Dasgupta, Frost and Moshkovitz, Framework for evaluating faithfulness of local explanations,
        ICML 2022, section 3.

    Differs from Quantus, which divides each pixel by its deviation over the batch.
    """
    check_range("threshold", threshold, 0, 1)
    scores = reduced(attribution, reduce)
    known = finite(scores)
    flat = scores.reshape(len(scores), -1) if scores.size else jnp.zeros((len(scores), 1))
    largest = jnp.abs(flat).max(1, keepdims=True)
    flat = flat / jnp.where(largest > 0, largest, 1)
    distance = lax.map(lambda a: jnp.sqrt(((flat - a) ** 2).sum(1)), flat)
    pairs = known & known[:, None]
    most = jnp.where(pairs, distance, 0).max(initial=0)
    return _agreement(pairs & (distance <= threshold * most), predicted, known)


def _agreement(alike: Array, predicted: Array, known: Array) -> Score:
    """Return for each image the share of the others alike that have its prediction."""
    predicted = jnp.asarray(predicted)
    if predicted.shape != known.shape or not jnp.issubdtype(predicted.dtype, jnp.integer):
        raise ValueError(
            f"predicted has shape {predicted.shape} and dtype {predicted.dtype}; expected a class "
            f"for each map, {known.shape}"
        )
    others = alike & ~jnp.eye(len(known), dtype=bool) & known
    same = (others & (predicted == predicted[:, None])).sum(1)
    number = others.sum(1)
    return scored(same / jnp.where(number > 0, number, 1), known & (number > 0))
