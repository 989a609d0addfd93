"""Faithfulness: how well what a map tells of subsets of pixels goes with what is seen."""

import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_positive, need_key
from jaxattr.image.maps import heatmap
from jaxattr.loops.progress import Progress
from jaxattr.metrics.arguments import batch_of
from jaxattr.metrics.correlation import pearson, spearman
from jaxattr.metrics.grid_pointing import cell_numbers
from jaxattr.metrics.imputation import RandomCurve
from jaxattr.metrics.infidelities import RandomMetric
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Curve, Score, scored
from jaxattr.metrics.subset_effects import SubsetMetric, draws, groups, parts, subset_effects
from jaxattr.scores import Score as Measured
from jaxattr.scores import logit
from jaxattr.types import Array, Baseline, Fun, Key


def faithfulness_correlation(
    f: Fun,
    *,
    size: int = 224,
    samples: int = 100,
    baseline: Baseline = 0.0,
    score: Measured = logit,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> RandomMetric:
    """Correlate what a map tells of random subsets of pixels with what their removal does.

        score = corr over S of ( sum_{p in S} a_p,  s(x) - s(x with S replaced) ),   |S| = size

    by Pearson. Higher is better. Laws: 1 for a model linear in the image and its gradient times the
    image; unchanged when the map is multiplied by a positive number. It is `sensitivity_n` of one
    size.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        size: of the subsets, in pixels.
        samples: how many subsets are drawn, the same for all images of a batch.
        baseline: what pixels are replaced by.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many subsets of each image are replaced at once, at most.
        progress: called with the number of subsets done, up to a hundred times.

    Returns:
        A function of `x`, `target`, `attribution` and `key` to correlations in [-1, 1]; none where
        the map tells the same of all subsets, or their removal does the same. Cost: samples + 1
        forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f, x = lambda x: x.sum((1, 2)), jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> measure = faithfulness_correlation(f, size=2, samples=9)
        >>> round(jax.jit(measure)(x, jnp.array([0]), x, key=jax.random.key(0)).score.item(), 4)
        1.0

    Reference:
        Bhatt, Weller and Moura, Evaluating and aggregating feature-based model explanations, IJCAI
        2020, definition 2.

    Differs from Quantus, which takes colors of pixels apart, and divides the map by its largest
    value, which the correlation does not notice.
    """
    options = {"samples": samples, "baseline": baseline, "score": score, "reduce": reduce}
    curve = sensitivity_n(f, counts=(size,), chunk=chunk, progress=progress, **options)

    def measure(x: Array, target: Array, attribution: Array, *, key: Key) -> Score:
        found = curve(x, target, attribution, key=key)
        return scored(found.score, found.valid)

    return measure


def sensitivity_n(
    f: Fun,
    *,
    counts: tuple[int, ...] | None = None,
    samples: int = 100,
    baseline: Baseline = 0.0,
    score: Measured = logit,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> RandomCurve:
    """Correlate what a map tells of subsets of n pixels with what their removal does, for many n.

        curve_n = corr over S of ( sum_{p in S} a_p,  s(x) - s(x with S replaced) ),   |S| = n

    by Pearson; the score is the mean over n. Higher is better; 1 everywhere is the axiom
    sensitivity-n, which no method fulfills for all n where the model is not linear. Laws are those
    of `faithfulness_correlation`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        counts: the numbers n of pixels; by default 10 from 1 to 80 % of the pixels, each about the
            same multiple of the one before.
        samples: how many subsets are drawn for each n, the same for all images of a batch.
        baseline: what pixels are replaced by.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many subsets of each image are replaced at once, at most.
        progress: called with the number of subsets done, up to a hundred times.

    Returns:
        A function of `x`, `target`, `attribution` and `key` to a `Curve` of correlations. Cost:
        samples + 1 forward passes for each n.

    Raises:
        ValueError: if shapes do not fit, a size is not one of a part of the pixels, or `x` or
            `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f, x = lambda x: x.sum((1, 2)), jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> measure = sensitivity_n(f, counts=(1, 3), samples=9)
        >>> jax.jit(measure)(x, jnp.array([0]), x, key=jax.random.key(0)).curve.round(3).tolist()
        [[1.0, 1.0]]

    Reference:
        Ancona, Ceolini, Oeztireli and Gross, Towards better understanding of gradient-based
        attribution methods, ICLR 2018, section 4.

    Differs from Quantus, which removes the most attributed pixels one after another instead of
    random subsets, and correlates over the images of a batch.
    """
    check_positive("samples", samples)

    def measure(x: Array, target: Array, attribution: Array, *, key: Key) -> Curve:
        x = batch_of(x)
        pixels = x.shape[1] * x.shape[2]
        every = _spaced(pixels) if counts is None else np.asarray(counts)
        if every.size == 0 or every.min() < 1 or every.max() >= pixels:
            raise ValueError(
                f"subsets of {every.tolist()} pixels; expected at least 1 and less than {pixels}"
            )
        size = lambda number: jnp.asarray(every)[number // samples]
        found = subset_effects(
            f,
            x,
            target,
            attribution,
            draws(need_key(key, "sensitivity_n"), size),
            jnp.arange(len(every) * samples),
            baseline=baseline,
            score=score,
            reduce=reduce,
            chunk=chunk,
            progress=progress,
        )
        shape = (len(x), len(every), samples)
        curve = pearson(found.told.reshape(shape), found.seen.reshape(shape))
        curve = jnp.where(found.valid[:, None], curve, jnp.nan)
        return Curve(curve, *scored(curve.mean(1)))

    return measure


def _spaced(pixels: int) -> np.ndarray:
    return np.unique(np.rint(np.geomspace(1, max(0.8 * pixels, 1), 10)).astype(int))


def faithfulness_estimate(
    f: Fun,
    *,
    step: int = 224,
    baseline: Baseline = 0.0,
    score: Measured = logit,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> SubsetMetric:
    """Correlate the map with what the removal of pixels does, group by group in the map's order.

        score = corr over i of ( sum_{p in S_i} a_p,  s(x) - s(x with S_i replaced) )

    by Pearson; `S_i` are the pixels of ranks `i step` to `(i + 1) step - 1`, each group removed
    alone. Higher is better. Law: 1 for a model linear in the image and its gradient times the
    image.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        step: pixels of a group.
        baseline: what pixels are replaced by.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many groups of each image are replaced at once, at most.
        progress: called with the number of groups done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to correlations in [-1, 1]; none where either
        side is constant. Cost: HW / step + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f, x = lambda x: x.sum((1, 2)), jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> round(jax.jit(faithfulness_estimate(f, step=1))(x, jnp.array([0]), x).score.item(), 4)
        1.0

    Reference:
        Alvarez-Melis and Jaakkola, Towards robust interpretability with self-explaining neural
        networks, NeurIPS 2018, section 4.
    """

    def measure(x: Array, target: Array, attribution: Array) -> Score:
        x = batch_of(x)
        found = subset_effects(
            f,
            x,
            target,
            attribution,
            groups(step),
            jnp.arange(-(-x.shape[1] * x.shape[2] // step)),
            baseline=baseline,
            score=score,
            reduce=reduce,
            chunk=chunk,
            progress=progress,
        )
        return scored(pearson(found.told, found.seen), found.valid)

    return measure


def idsds(
    f: Fun,
    *,
    cells: int = 4,
    baseline: Baseline = 0.0,
    score: Measured = logit,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> SubsetMetric:
    """Correlate the ranks of a few patches with what the removal of each does (IDSDS).

        score = rank corr over patches P of ( sum_{p in P} a_p,  s(x) - s(x with P replaced) )

    by Spearman. Higher is better. The in-domain single-deletion score is that of a network that
    was fine-tuned on images with random patches replaced, so that the removal of one is nothing new
    to it. Laws: 1 for a model linear in the image and its gradient times the image; unchanged when
    the map is multiplied by a positive number.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, a fine-tuned network.
        cells: patches of a side.
        baseline: what a patch is replaced by, in the paper 0.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many patches of each image are replaced at once, at most.
        progress: called with the number of patches done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to correlations in [-1, 1]; none where either
        side is constant. Cost: cells^2 + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f, x = lambda x: x.sum((1, 2)), jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> round(jax.jit(idsds(f, cells=2))(x, jnp.array([0]), x**3).score.item(), 4)
        1.0

    Reference:
        Hesse, Schaub-Meyer and Roth, Benchmarking the attribution quality of vision models, NeurIPS
        2024, section 3.
    """
    check_positive("cells", cells)

    def measure(x: Array, target: Array, attribution: Array) -> Score:
        x = batch_of(x)
        found = subset_effects(
            f,
            x,
            target,
            attribution,
            parts(jnp.asarray(cell_numbers(x.shape[1:3], cells))),
            jnp.arange(cells**2),
            baseline=baseline,
            score=score,
            reduce=reduce,
            chunk=chunk,
            progress=progress,
        )
        return scored(spearman(found.told, found.seen), found.valid)

    return measure
