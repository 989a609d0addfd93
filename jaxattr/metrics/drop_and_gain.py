"""Average drop, increase and gain: what a map leaves of its class when it masks the image."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxattr import scores
from jaxattr.contract import check_batch
from jaxattr.image.maps import heatmap, unit_range
from jaxattr.metrics.arguments import real
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Fun

MaskedImageMetric: TypeAlias = Callable[[Array, Array, Array], Score]
"""From `x`, `target` and `attribution` to the scores of the images behind their maps."""


def average_drop(
    f: Fun, *, score: scores.Score = scores.probability, reduce: Reduction = heatmap
) -> MaskedImageMetric:
    """Measure how much of a class is lost when all that a map does not show is dimmed.

        score = max(y - y', 0) / y,    y = p_t(x),    y' = p_t(x * m)

    with the map scaled to [0, 1] as the mask m. Lower is better. The average over images is what
    is reported, as `mean` makes it. Law: a map for which the mask is 1 everywhere has 0.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        score: what is measured of the logits, of `jaxattr.scores`; not negative.
        reduce: how the channels of an attribution become one number.

    Returns:
        A function of `x`, `target` and `attribution` of the images' size to a share; none where the
        map is not finite, or `y` not positive. Cost: two forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([3.0, 1.0]).reshape(1, 1, 2, 1)
        >>> jax.jit(average_drop(f, score=scores.logit))(x, jnp.array([0]), x).score.item()
        0.25

    Reference:
        Chattopadhay, Sarkar, Howlader and Balasubramanian, Grad-CAM++, WACV 2018, section 4.1.
    """
    return _compared(f, score, reduce, lambda y, behind: _share(jnp.maximum(y - behind, 0), y))


def average_increase(
    f: Fun, *, score: scores.Score = scores.probability, reduce: Reduction = heatmap
) -> MaskedImageMetric:
    """Test whether a class gains when all that a map does not show is dimmed.

        score = 1[y < y'],    y = p_t(x),    y' = p_t(x * m)

    with the map scaled to [0, 1] as the mask m. Higher is better.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        score: what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.

    Returns:
        A function as for `average_drop`, to 0 or 1.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([3.0, -1.0]).reshape(1, 1, 2, 1)
        >>> jax.jit(average_increase(f, score=scores.logit))(x, jnp.array([0]), x).score.item()
        1.0

    Reference:
        Chattopadhay, Sarkar, Howlader and Balasubramanian, Grad-CAM++, WACV 2018, section 4.1.
    """
    return _compared(f, score, reduce, lambda y, behind: (y < behind).astype(y.dtype))


def average_gain(
    f: Fun, *, score: scores.Score = scores.probability, reduce: Reduction = heatmap
) -> MaskedImageMetric:
    """Measure how much a class gains when all that a map does not show is dimmed.

        score = max(y' - y, 0) / (1 - y),    y = p_t(x),    y' = p_t(x * m)

    with the map scaled to [0, 1] as the mask m. Higher is better. Unlike `average_increase` it
    tells how much, and together with `average_drop` it does not reward maps that show all.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        score: what is measured of the logits, a probability.
        reduce: how the channels of an attribution become one number.

    Returns:
        A function as for `average_drop`; no score where y is 1 or more.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([0.75, -0.25]).reshape(1, 1, 2, 1)
        >>> jax.jit(average_gain(f, score=scores.logit))(x, jnp.array([0]), x).score.item()
        0.5

    Reference:
        Zhang, Torres, Sicre, Avrithis and Ayache, Opti-CAM, CVIU 2024, section 4.2.
    """
    return _compared(f, score, reduce, lambda y, behind: _share(jnp.maximum(behind - y, 0), 1 - y))


def _compared(
    f: Fun, score: scores.Score, reduce: Reduction, compare: Callable[[Array, Array], Array]
) -> MaskedImageMetric:
    """Compare the score of images with that of the same behind their maps."""

    def measure(x: Array, target: Array, attribution: Array) -> Score:
        x, target = jnp.asarray(x), jnp.asarray(target)
        check_batch(f, x, target)
        a, g = reduced(attribution, reduce, x.shape[:3]), lowered(f)
        masked = (x * unit_range(a)[..., None]).astype(x.dtype)
        y, behind = (score(real("the logits", g(images)), target) for images in (x, masked))
        return scored(compare(y, behind), finite(a))

    return measure


def _share(part: Array, whole: Array) -> Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)
