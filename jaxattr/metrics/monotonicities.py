"""Monotonicity and non-sensitivity: whether pixels count as their attributions say."""

import jax
import jax.numpy as jnp

from jaxattr.contract import check_not_negative, check_positive, need_key
from jaxattr.loops.progress import Progress
from jaxattr.metrics.arguments import batch_of
from jaxattr.metrics.correlation import spearman
from jaxattr.metrics.infidelities import RandomMetric
from jaxattr.metrics.perturbation_curve import by_pixels, perturbation_curve, unchanged
from jaxattr.metrics.reductions import Reduction, magnitude_sum
from jaxattr.metrics.regions import squares
from jaxattr.metrics.results import Score, scored
from jaxattr.metrics.subset_effects import SubsetMetric, groups, parts, subset_effects
from jaxattr.scores import Score as Measured
from jaxattr.scores import probability
from jaxattr.types import Array, Baseline, Fun, Key


def monotonicity(
    f: Fun,
    *,
    step: int = 224,
    baseline: Baseline = 0.0,
    score: Measured = probability,
    reduce: Reduction = magnitude_sum,
    chunk: int = 16,
    progress: Progress | None = None,
) -> SubsetMetric:
    """Test whether a class only gains as pixels are put onto a baseline, the least important first.

        score = 1[ s_0 <= s_1 <= ... <= s_n ],    s_i = s(b(x) with the i step least important
                                                           pixels of x)

    Higher is better. Law: 1 where no pixel counts against the class, whatever the map.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        step: pixels a step.
        baseline: what the pixels are put onto.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become the importance of a pixel.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to 0 or 1. Cost: HW / step + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([[3.0, 1.0], [3.0, -1.0]])[:, None, :, None]
        >>> measure = jax.jit(monotonicity(f, step=1, score=scores.logit))
        >>> measure(x, jnp.array([0, 0]), x).score.tolist()
        [1.0, 0.0]

    Reference:
        Arya et al., One explanation does not fit all, 2019, after Luss et al., Generating
        contrastive explanations with monotonic attribute functions, 2019.

    Differs from Quantus, which adds pixels of the baseline to the baseline.
    """
    curve = perturbation_curve(
        f,
        before=baseline,
        after=unchanged,
        counts=by_pixels(step),
        score=score,
        reduce=lambda a: -reduce(a),
        chunk=chunk,
        progress=progress,
    )

    def measure(x: Array, target: Array, attribution: Array) -> Score:
        found = curve(x, target, attribution)
        rises = (found.curve[:, 1:] >= found.curve[:, :-1]).all(1)
        return scored(rises.astype(found.curve.dtype), found.valid)

    return measure


def monotonicity_correlation(
    f: Fun,
    *,
    step: int = 224,
    samples: int = 10,
    score: Measured = probability,
    reduce: Reduction = magnitude_sum,
    chunk: int = 16,
    progress: Progress | None = None,
) -> RandomMetric:
    """Correlate the ranks of groups of pixels with how much a class changes when they are noise.

        score = rank corr over i of ( sum_{p in S_i} |a_p|,  E (s(x) - s(x with S_i noise))^2 )

    by Spearman. `S_i` are the pixels of ranks `i step` to `(i + 1) step - 1`; noise is uniform
    between the smallest and the largest value of the image. Higher is better. The paper divides by
    `s(x)^2`, which ranks do not notice.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        step: pixels of a group.
        samples: draws of noise for each group.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become the importance of a pixel.
        chunk: how many draws of each image are evaluated at once, at most.
        progress: called with the number of draws done, up to a hundred times.

    Returns:
        A function of `x`, `target`, `attribution` and `key` to correlations in [-1, 1]; none where
        either side is constant. Cost: samples HW / step + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> x = jnp.array([0.0, 1.0, 9.0]).reshape(1, 1, 3, 1)
        >>> f = lambda z: (z * x).sum((1, 2))
        >>> measure = monotonicity_correlation(f, step=1, score=scores.logit)
        >>> round(jax.jit(measure)(x, jnp.array([0]), x, key=jax.random.key(0)).score.item(), 4)
        1.0

    Reference:
        Nguyen and Rodriguez Martinez, On quantitative aspects of model interpretability, 2020,
        section 3.2.
    """
    check_positive("samples", samples)

    def measure(x: Array, target: Array, attribution: Array, *, key: Key) -> Score:
        x, key = batch_of(x), need_key(key, "monotonicity_correlation")
        low, high = (m((1, 2, 3), keepdims=True) for m in (x.min, x.max))

        def noise(number: Array) -> Array:
            drawn = jax.random.uniform(jax.random.fold_in(key, number), x.shape[1:], x.dtype)
            return low + (high - low) * drawn

        count = -(-x.shape[1] * x.shape[2] // step)
        found = subset_effects(
            f,
            x,
            target,
            attribution,
            groups(step, each=samples),
            jnp.arange(count * samples),
            noise=noise,
            score=score,
            reduce=reduce,
            chunk=chunk,
            progress=progress,
        )
        shape = (len(x), count, samples)
        moved = (found.seen.reshape(shape) ** 2).mean(2)
        return scored(spearman(found.told.reshape(shape)[..., 0], moved), found.valid)

    return measure


def non_sensitivity(
    f: Fun,
    *,
    size: int = 1,
    tolerance: float = 1e-5,
    baseline: Baseline = 0.0,
    score: Measured = probability,
    reduce: Reduction = magnitude_sum,
    chunk: int = 16,
    progress: Progress | None = None,
) -> SubsetMetric:
    """Count the pixels of which the map and the model disagree whether they matter at all.

        score = | {p : |a_p| <= e}  xor  {p : |s(x) - s(x with p replaced)| <= e} |

    Lower is better. The map is divided by its largest magnitude first.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        size: sides of squares of pixels that stand for one; 1 in the paper, a forward pass for
            every pixel.
        tolerance: e, up to which a value counts as zero.
        baseline: what a pixel is replaced by.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become the importance of a pixel.
        chunk: how many squares of each image are replaced at once, at most.
        progress: called with the number of squares done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to a number of squares. Cost: HW / size^2 + 1
        forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x[:, 0, :2].sum(1), jnp.ones((1, 1, 4, 1))  # two pixels matter
        >>> a = jnp.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 4)
        >>> jax.jit(non_sensitivity(f, score=scores.logit))(x, jnp.array([0]), a).score.item()
        2.0

    Reference:
        Nguyen and Rodriguez Martinez, On quantitative aspects of model interpretability, 2020,
        section 3.2.
    """
    check_positive("size", size)
    check_not_negative("tolerance", tolerance)

    def measure(x: Array, target: Array, attribution: Array) -> Score:
        x = batch_of(x)
        labels = squares(x.shape[1:3], size)

        def importance(a: Array) -> Array:
            found = jnp.abs(reduce(a))
            largest = found.max((1, 2), keepdims=True)
            return found / jnp.where(largest > 0, largest, 1)

        found = subset_effects(
            f,
            x,
            target,
            attribution,
            parts(jnp.asarray(labels)),
            jnp.arange(int(labels[-1, -1]) + 1),
            baseline=baseline,
            score=score,
            reduce=importance,
            chunk=chunk,
            progress=progress,
        )
        unequal = (found.told <= tolerance) ^ (jnp.abs(found.seen) <= tolerance)
        return scored(unequal.sum(1).astype(found.seen.dtype), found.valid)

    return measure
