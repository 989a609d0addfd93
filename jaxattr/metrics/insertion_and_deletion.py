"""Insertion, deletion and complementary insertion: pixels exchanged in the order of attribution."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_images, count_classes, is_concrete
from jaxattr.deprecated import renamed_options
from jaxattr.image.maps import heatmap
from jaxattr.loops.progress import Progress
from jaxattr.metrics.baselines import blur
from jaxattr.metrics.perturbation_curve import (
    PerturbationMetric,
    by_pixels,
    perturbation_curve,
    unchanged,
)
from jaxattr.metrics.reductions import Reduction
from jaxattr.scores import Score, probability
from jaxattr.types import Array, Baseline, Fun


@renamed_options(output="score")
def insertion(
    f: Fun,
    *,
    step: int = 224,
    baseline: Baseline = blur,
    score: Score = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure how fast a class appears as pixels are inserted, the most attributed first.

        curve_i = p_t( b(x) with the min(i step, HW) most attributed pixels of x ),  i = 0..n,
        score = (sum_i curve_i - (curve_0 + curve_n)/2) / n,    n = ceil(HW / step)

    Pixels are inserted into a blurred image, all channels at once. Higher is better. Ties are
    broken in reading order (left to right, then top to bottom). Laws: `curve` ends at `p_t(x)`;
    for `f` linear in the image, `score` the logit and a map of `f`'s own differences, no other
    order scores higher.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        step: pixels a step: a row of a 224x224 image; RISE's tables take 8 rows, 1792.
        baseline: what the insertion starts from.
        score: what is measured of the logits, of `jaxattr.scores`. RISE takes the class that the
            model predicts, DMBP the true one: pass it as `target`.
        reduce: how the channels of an attribution become one number. The choice changes the score
            as much as the method of attribution does: report it with every score. Also
            `positive_sum` and `magnitude_sum`.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` (int `(B,)`) and `attribution` (`(B, H, W)` or
        `(B, H, W, C)`, any C), to a `Curve`. Cost: n + 1 forward passes. Call it under `jit`.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jnp.stack([x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], -1)  # sees one pixel
        >>> x, target = jnp.full((1, 2, 2, 1), 50.0), jnp.array([0])
        >>> measure = insertion(f, step=1, baseline=jnp.zeros_like)
        >>> found = measure(x, target, x.at[0, 0, 0].add(1))
        >>> found.curve.tolist(), found.score.item()
        ([[0.5, 1.0, 1.0, 1.0, 1.0]], 0.9375)

    Reference:
        Petsiuk, Das and Saenko, RISE, BMVC 2018, section 4.2; Ruiz et al., DMBP, ICCV 2021.

    Differs from the authors' code in ties, whose order there is that of an unstable sort.
    """
    return perturbation_curve(
        f,
        before=baseline,
        after=unchanged,
        counts=by_pixels(step),
        score=score,
        reduce=reduce,
        chunk=chunk,
        progress=progress,
    )


@renamed_options(output="score")
def deletion(
    f: Fun,
    *,
    step: int = 224,
    baseline: Baseline = 0.0,
    score: Score = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure how fast a class disappears as pixels are replaced, the most attributed first.

        curve_i = p_t( x with its min(i step, HW) most attributed pixels taken from b(x) )

    The replacement is zero, which is the mean of the training images once they are normalized.
    Lower is better. Steps, score, ties and arguments are those of `insertion`. Laws: `curve`
    starts at `p_t(x)`; with the baseline and the image exchanged, and the map negated, it is an
    insertion read backwards (where `step` divides the number of pixels).

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        step: pixels a step.
        baseline: what the deletion ends with.
        score: what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to a `Curve`. Cost: n + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f = lambda x: x.sum((1, 2))  # a logit linear in the image
        >>> x, target = jnp.array([3.0, 2.0, 1.0]).reshape(1, 1, 3, 1), jnp.array([0])
        >>> deletion(f, step=1, score=scores.logit)(x, target, x).curve.tolist()
        [[6.0, 3.0, 1.0, 0.0]]

    Reference:
        Petsiuk, Das and Saenko, RISE, BMVC 2018, section 4.2.
    """
    return perturbation_curve(
        f,
        before=unchanged,
        after=baseline,
        counts=by_pixels(step),
        score=score,
        reduce=reduce,
        chunk=chunk,
        progress=progress,
    )


@renamed_options(output="score")
def complementary_insertion(
    f: Fun,
    *,
    step: int = 224,
    baseline: Baseline = blur,
    score: Score = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure how fast the *other* classes of an image appear, the least attributed pixels first.

        curve_i = mean over the other classes o of
                  p_o( b(x) with the min(i step, HW) least attributed pixels of x )

    In a map that separates its class from the others, the pixels of the others have the least
    attribution. Higher is better. Steps, score, ties and arguments are those of `insertion`. Law:
    with one other class it is the insertion of that class by the negated map.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        step: pixels a step.
        baseline: what the insertion starts from.
        score: what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `others` and `attribution` to a `Curve`. `others` are the classes in
        the image apart from the one that `attribution` explains, int `(B, m)`, padded with -1.
        An image without others has no score. Cost: n + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `others` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f = lambda x: x[:, 0, :, 0]  # each class sees its own pixel
        >>> x = jnp.array([3.0, 2.0, 1.0]).reshape(1, 1, 3, 1)
        >>> measure = complementary_insertion(f, step=1, baseline=0.0, score=scores.logit)
        >>> others = jnp.array([[1, -1]])  # the map explains class 0, and class 1 is there too
        >>> measure(x, others, x).curve.tolist()
        [[0.0, 0.0, 2.0, 2.0]]

    Reference:
        Ruiz et al., DMBP, ICCV 2021.
    """
    measure = perturbation_curve(
        f,
        before=baseline,
        after=unchanged,
        counts=by_pixels(step),
        score=_mean_over_others(score),
        reduce=lambda a: -reduce(a),
        chunk=chunk,
        progress=progress,
        check=_check_others,
    )
    return lambda x, others, attribution: measure(x, others, attribution)


def _mean_over_others(score: Score) -> Score:
    def read(logits: Array, others: Array) -> Array:
        each, there = jax.vmap(score, (None, 1), 1)(logits, others), others != -1
        # 0 / 0 is NaN, no score, for an image without others
        return jnp.where(there, each, 0).sum(-1) / there.sum(-1)

    return read


def _check_others(f: Fun, x: Array, others: Array) -> None:
    check_images(x)
    classes, batch = count_classes(f, x), x.shape[0]
    if others.ndim != 2 or len(others) != batch or not jnp.issubdtype(others.dtype, jnp.integer):
        raise ValueError(
            f"others has shape {others.shape} and dtype {others.dtype}; expected integer classes "
            f"of shape ({batch}, m), padded with -1"
        )
    if is_concrete(others):
        values = np.asarray(others)
        if (wrong := (values < -1) | (values >= classes)).any():
            i, j = np.argwhere(wrong)[0]
            raise ValueError(
                f"others[{i}, {j}] is {values[i, j]}; the classes are 0 to {classes - 1}, and -1 "
                "stands for none"
            )
