"""MoRF, LeRF and SRG: what is left of a class as its most or least relevant pixels are removed."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxattr.deprecated import renamed_options
from jaxattr.image.maps import heatmap
from jaxattr.loops.progress import Progress
from jaxattr.metrics.perturbation_curve import (
    PerturbationMetric,
    by_fraction,
    perturbation_curve,
    unchanged,
)
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Score as Scored
from jaxattr.metrics.results import scored
from jaxattr.scores import Score, logit, probability
from jaxattr.types import Array, Baseline, Fun


def ratio(curve: Array) -> Array:
    """Divide each curve by its first value; NaN where that is not positive."""
    first = curve[:, :1]
    return jnp.where(first > 0, curve / jnp.where(first > 0, first, 1), jnp.nan)


def absolute_change(curve: Array) -> Array:
    """Return the distance of each curve from its first value: `|curve_i - curve_0|`."""
    return jnp.abs(curve - curve[:, :1])


@renamed_options(output="score")
def morf(
    f: Fun,
    *,
    fraction: float = 0.05,
    steps: int = 20,
    baseline: Baseline = 0.0,
    score: Score = logit,
    change: Callable[[Array], Array] = ratio,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure what is left of a class as pixels are removed, the most relevant first.

        n_i = round(i fraction HW / steps),    y_i = y_t( x with its n_i most attributed pixels 0 ),
        curve_i = y_i / y_0,    i = 0..steps;    score = area under curve over n_i / n_steps

    As in LPR: the logit, up to 5 % of the pixels; lower is better. As in TR-GBP: the probability,
    up to all of them, `morf(f, fraction=1, score=probability, change=absolute_change)`; higher is
    better. Ties are broken as in `insertion`. Law: `curve` starts at 1 (0).

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        fraction: the share of the pixels that are removed at the last step, in (0, 1].
        steps: their number.
        baseline: what the pixels are replaced by.
        score: what is measured of the logits, of `jaxattr.scores`.
        change: curves `(B, steps + 1)` of it to what is reported: `ratio` or `absolute_change`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to a `Curve`. Under `ratio` an image whose
        logit is not positive has no score. Cost: steps + 1 forward passes. Call it under `jit`.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.sum((1, 2))  # a logit linear in the image
        >>> x, target = jnp.array([4.0, 3.0, 1.0]).reshape(1, 1, 3, 1), jnp.array([0])
        >>> morf(f, fraction=1, steps=3)(x, target, x).curve.tolist()
        [[1.0, 0.5, 0.125, 0.0]]

    Reference:
        Yang et al., Learning propagation rules, ECCV 2020; Towards predictable
        feature attribution (TR-GBP), under review at ICLR, appendix D.
    """
    return perturbation_curve(
        f,
        before=unchanged,
        after=baseline,
        counts=by_fraction(fraction, steps),
        score=score,
        reduce=reduce,
        chunk=chunk,
        progress=progress,
        change=change,
    )


@renamed_options(output="score")
def lerf(
    f: Fun,
    *,
    fraction: float = 0.05,
    steps: int = 20,
    baseline: Baseline = 0.0,
    score: Score = logit,
    change: Callable[[Array], Array] = ratio,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure what is left of a class as pixels are removed, the least relevant first.

    It is `morf` in the opposite order, and the other values are better. Law: it is `morf` of the
    negated map. In a signed map the least relevant pixels are evidence against the class, so that
    `ratio` may exceed 1; with `reduce=magnitude_sum` they are those of the smallest magnitude.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        fraction: the share of the pixels that are removed at the last step, in (0, 1].
        steps: their number.
        baseline: what the pixels are replaced by.
        score: what is measured of the logits, of `jaxattr.scores`.
        change: curves of it to what is reported: `ratio` or `absolute_change`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to a `Curve`, as for `morf`.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.sum((1, 2))  # a logit linear in the image
        >>> x, target = jnp.array([4.0, 3.0, 1.0]).reshape(1, 1, 3, 1), jnp.array([0])
        >>> lerf(f, fraction=1, steps=3)(x, target, x).curve.tolist()
        [[1.0, 0.875, 0.5, 0.0]]

    Reference:
        Yang et al., Learning propagation rules, ECCV 2020; Towards predictable
        feature attribution (TR-GBP), under review at ICLR, appendix D.
    """
    return morf(
        f,
        fraction=fraction,
        steps=steps,
        baseline=baseline,
        score=score,
        change=change,
        reduce=lambda a: -reduce(a),
        chunk=chunk,
        progress=progress,
    )


def srg(
    f: Fun,
    *,
    fraction: float = 1.0,
    steps: int = 20,
    baseline: Baseline = 0.0,
    score: Score = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Callable[[Array, Array, Array], Scored]:
    """Measure by how much the least relevant pixels leave more of a class than the most relevant.

        score = area under the curve of lerf - area under the curve of morf

    the symmetric relevance gain, of the scores themselves (`change` is the identity). What removed
    pixels do by being out of distribution is in both areas, and random maps have about 0. Higher is
    better. Law: the negated map has the negated score, where no pixels are tied.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        fraction: the share of the pixels that are removed at the last step, in (0, 1].
        steps: their number.
        baseline: what the pixels are replaced by.
        score: what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, of both curves.

    Returns:
        A function of `x`, `target` and `attribution` to a score. Cost: 2 steps + 2 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f = lambda x: x.sum((1, 2))  # a logit linear in the image
        >>> x, target = jnp.array([4.0, 3.0, 1.0]).reshape(1, 1, 3, 1), jnp.array([0])
        >>> round(srg(f, steps=3, score=scores.logit)(x, target, x).score.item(), 4)
        2.0

    Reference:
        Bluecher, Vielhaben and Strodthoff, Decoupling pixel flipping and occlusion strategy for
        consistent XAI benchmarks, TMLR 2024.
    """
    options = {"fraction": fraction, "steps": steps, "baseline": baseline, "score": score}
    given = {**options, "change": unchanged, "chunk": chunk}
    later = progress and (lambda done: progress(steps + 1 + done))
    least = lerf(f, reduce=reduce, progress=progress, **given)
    most = morf(f, reduce=reduce, progress=later, **given)

    def measure(x: Array, target: Array, attribution: Array) -> Scored:
        lower, upper = (m(x, target, attribution) for m in (most, least))
        return scored(upper.score - lower.score, lower.valid & upper.valid)

    return measure
