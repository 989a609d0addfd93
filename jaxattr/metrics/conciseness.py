"""Conciseness of maps: how few pixels hold the attribution."""

import jax.numpy as jnp
from jax.scipy.special import entr

from jaxattr.contract import check_not_negative
from jaxattr.image.maps import heatmap
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array


def sparseness(attribution: Array, *, reduce: Reduction = heatmap) -> Score:
    """Return the Gini index of the magnitudes of a map.

        score = sum_k (2 k - n - 1) v_k / (n sum_k v_k),   k = 1..n

    with the magnitudes `v` of the n pixels in ascending order. Laws: 0 for a constant map,
    `1 - 1/n` for a single pixel; the same for every multiple of the map. Higher is sparser.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        reduce: how the channels become one number.

    Returns:
        Scores in [0, 1); none where the map is zero or not finite.

    Raises:
        ValueError: if the maps have another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> sparseness(jnp.array([[[0.0, 0.0, 0.0, -2.0]], [[1.0, 1.0, 1.0, 1.0]]])).score.tolist()
        [0.75, 0.0]

    Reference:
        Chalasani, Chen, Chowdhury, Wu and Jha, Concise explanations of neural networks using
        adversarial training, ICML 2020.
    """
    v, known = _magnitudes(attribution, reduce)
    n, ascending = v.shape[1], jnp.sort(v, axis=1)
    weight = (2 * jnp.arange(1, n + 1) - n - 1).astype(v.dtype) / n
    return scored((weight * ascending).sum(1) / jnp.where(known, v.sum(1), 1), known)


def complexity(attribution: Array, *, reduce: Reduction = heatmap) -> Score:
    """Return the entropy of the shares of the pixels in a map.

        score = - sum_p P_p ln P_p,    P_p = |a_p| / sum_q |a_q|

    Laws: `ln n` for a constant map of n pixels, 0 for a single pixel; the same for every multiple
    of the map. Lower is simpler.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        reduce: how the channels become one number.

    Returns:
        Scores in nats; none where the map is zero or not finite.

    Raises:
        ValueError: if the maps have another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> maps = jnp.array([[[0.0, 0.0, 0.0, -2.0]], [[1.0, 1.0, 1.0, 1.0]]])
        >>> jnp.exp(complexity(maps).score).round(3).tolist()  # as many pixels, evenly
        [1.0, 4.0]

    Reference:
        Bhatt, Weller and Moura, Evaluating and aggregating feature-based model explanations, IJCAI
        2020, definition 4.
    """
    v, known = _magnitudes(attribution, reduce)
    return scored(entr(v / jnp.where(known, v.sum(1), 1)[:, None]).sum(1), known)


def effective_complexity(
    attribution: Array, *, tolerance: float = 1e-5, reduce: Reduction = heatmap
) -> Score:
    """Count the pixels whose magnitude is not negligible.

        score = | {p : |a_p| > e max_q |a_q|} |

    Lower is simpler. Law: the same for every multiple of the map.

    Args:
        attribution: maps `(B, H, W)` or `(B, H, W, C)`.
        tolerance: e, a share of the largest magnitude.
        reduce: how the channels become one number.

    Returns:
        A number of pixels; no score where the map is zero or not finite.

    Raises:
        ValueError: if the maps have another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> effective_complexity(jnp.array([[[5.0, 1.0, 0.0]]]), tolerance=0.1).score.item()
        2.0

    Reference:
        Nguyen and Rodriguez Martinez, On quantitative aspects of model interpretability, 2020,
        section 3.2.
    """
    check_not_negative("tolerance", tolerance)
    v, known = _magnitudes(attribution, reduce)
    large = v > tolerance * v.max(1, keepdims=True)
    return scored(large.sum(1).astype(v.dtype), known)


def _magnitudes(attribution: Array, reduce: Reduction) -> tuple[Array, Array]:
    """Return the magnitudes of pixels `(B, n)`, and whether a map is finite and not zero."""
    scores = reduced(attribution, reduce)
    v = jnp.abs(scores).reshape(len(scores), -1) if scores.size else jnp.zeros((len(scores), 1))
    return v, finite(scores) & (v > 0).any(1)
