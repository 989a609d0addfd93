"""Regions of an image, removed one after another: region perturbation, selectivity, IROF."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_positive, is_concrete
from jaxattr.image.maps import heatmap
from jaxattr.image.order import descending
from jaxattr.loops.progress import Progress
from jaxattr.metrics.arguments import batch_of
from jaxattr.metrics.perturbation_curve import PerturbationMetric, perturbation_curve, unchanged
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Curve, Score, scored
from jaxattr.scores import Score as Measured
from jaxattr.scores import probability
from jaxattr.types import Array, Baseline, Fun

SegmentMetric: TypeAlias = Callable[[Array, Array, Array, Array], Score]
"""From `x`, `target`, `attribution` and segments int `(B, H, W)` to scores."""


def squares(size: tuple[int, ...], side: int) -> np.ndarray:
    """Number the squares of an image in reading order, the last ones cut off: `(H, W)`.

    >>> squares((2, 3), 2).tolist()
    [[0, 0, 1], [0, 0, 1]]
    """
    check_positive("size", side)
    rows, columns = (np.arange(n) // side for n in size)
    return rows[:, None] * (columns[-1] + 1) + columns


def region_ranks(labels: Array, regions: int, *, mean: bool = False) -> Callable[[Array], Array]:
    """Rank regions by the sum of their pixels' scores, or the mean: `(B, H, W)` to the same.

    Args:
        labels: of the regions, int `(B, H, W)`.
        regions: their number; those without pixels are last.
        mean: whether the mean counts.
    """

    def rank(scores: Array) -> Array:
        def one(scores: Array, labels: Array) -> Array:
            total = lambda a: jax.ops.segment_sum(a.ravel(), labels.ravel(), regions)
            size = total(jnp.ones_like(scores))
            found = total(scores) / jnp.where(size > 0, size, 1) if mean else total(scores)
            order = descending(jnp.where(size > 0, found, -jnp.inf)[None])[0]
            return order[labels]

        return jax.vmap(one)(scores, jnp.broadcast_to(labels, scores.shape))

    return rank


def region_perturbation(
    f: Fun,
    *,
    size: int = 8,
    steps: int = 100,
    baseline: Baseline = 0.0,
    score: Measured = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure how much a class loses as squares of pixels are replaced, the most relevant first.

        curve_i = s(x) - s( x with its i most relevant squares replaced ),
        score = 1 / (n + 1) sum_{i=0..n} curve_i

    the area over the perturbation curve (AOPC). The relevance of a square is the sum over its
    pixels. Higher is better; with the least relevant first, by `reduce=lambda a: -a.sum(-1)`,
    lower. Law: `curve` starts at 0.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        size: of the squares; those at the right and lower borders are cut off.
        steps: how many squares are replaced, at most all.
        baseline: what they are replaced by.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to a `Curve`. Cost: steps + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([4.0, 3.0, 1.0]).reshape(1, 1, 3, 1)
        >>> measure = jax.jit(region_perturbation(f, size=2, score=scores.logit))
        >>> found = measure(x, jnp.array([0]), x)
        >>> found.curve.tolist(), found.score.item()
        ([[0.0, 7.0, 8.0]], 5.0)

    Reference:
        Samek, Binder, Montavon, Lapuschkin and Mueller, Evaluating the visualization of what a deep
        neural network has learned, IEEE TNNLS 2017, section III.

    Differs from the paper in the baseline: there it is noise, uniform between the smallest and the
    largest value, of which a function of images may be the `baseline` here.
    """
    check_positive("steps", steps)

    def measure(x: Array, target: Array, attribution: Array) -> Curve:
        found = _by_squares(
            f, x, size, steps, baseline, score, reduce, chunk, progress, lambda y: y[:, :1] - y
        )(x, target, attribution)
        return found._replace(score=found.curve.mean(1))

    return measure


def selectivity(
    f: Fun,
    *,
    size: int = 4,
    baseline: Baseline = 0.0,
    score: Measured = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> PerturbationMetric:
    """Measure what is left of a class as squares of pixels are replaced, the most relevant first.

        curve_i = s( x with its i most relevant squares replaced ),   i = 0 .. all

    The score is the area under the curve. Lower is better. It is `deletion` by squares.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        size: of the squares; those at the right and lower borders are cut off.
        baseline: what they are replaced by.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `attribution` to a `Curve`. Cost: a forward pass for every
        square.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([4.0, 3.0, 1.0]).reshape(1, 1, 3, 1)
        >>> jax.jit(selectivity(f, size=2, score=scores.logit))(x, jnp.array([0]), x).curve.tolist()
        [[8.0, 1.0, 0.0]]

    Reference:
        Montavon, Samek and Mueller, Methods for interpreting and understanding deep neural
        networks, Digital Signal Processing 73, 2018, section 6.2.
    """
    return lambda x, target, attribution: _by_squares(
        f, x, size, None, baseline, score, reduce, chunk, progress, unchanged
    )(x, target, attribution)


def _by_squares(
    f: Fun,
    x: Array,
    size: int,
    steps: int | None,
    baseline: Baseline,
    score: Measured,
    reduce: Reduction,
    chunk: int,
    progress: Progress | None,
    change: Callable[[Array], Array],
) -> PerturbationMetric:
    labels = squares(batch_of(x).shape[1:3], size)
    regions = int(labels.max(initial=-1)) + 1
    return perturbation_curve(
        f,
        before=unchanged,
        after=baseline,
        counts=lambda pixels: np.arange(min(steps or regions, regions) + 1),
        score=score,
        reduce=reduce,
        chunk=chunk,
        progress=progress,
        change=change,
        rank=region_ranks(jnp.asarray(labels), regions),
    )


def irof(
    f: Fun,
    *,
    regions: int,
    baseline: Baseline = 0.0,
    score: Measured = probability,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> SegmentMetric:
    """Measure the area over the curve of a class as segments are removed, best first (IROF).

        score = 1 - area under curve_l over l / L,    l = 0..L,
        curve_l = s( x with its l segments of the highest mean attribution replaced ) / s(x)

    for the L segments of an image. Higher is better. Superpixels fit what the image shows, so that
    fewer steps are needed than by pixels.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        regions: how many segments an image has, at most.
        baseline: what segments are replaced by; in the paper the mean color of the images, 0 once
            they are normalized.
        score: s, what is measured of the logits, of `jaxattr.scores`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target`, `attribution` and `segments`, int `(B, H, W)`, the segments of
        each image numbered from 0, as `skimage.segmentation.slic(image, start_label=0)` has them.
        Cost: regions + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, there are more segments, or `x` or `target` holds a wrong
            value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f, x = lambda x: x.sum((1, 2)), jnp.array([6.0, 1.0, 1.0]).reshape(1, 1, 3, 1)
        >>> measure = irof(f, regions=2, score=scores.logit)
        >>> jax.jit(measure)(x, jnp.array([0]), x, jnp.array([[[0, 1, 1]]])).score.item()
        0.625

    Reference:
        Rieger and Hansen, IROF, a low resource evaluation metric for explanation methods, 2020.

    Differs from Quantus, whose area is in units of segments and leaves out the whole image.
    """
    check_positive("regions", regions)

    def measure(x: Array, target: Array, attribution: Array, segments: Array) -> Score:
        x = batch_of(x)
        segments = _segments(segments, x.shape[:3], regions)
        found = perturbation_curve(
            f,
            before=unchanged,
            after=baseline,
            counts=lambda pixels: np.arange(regions + 1),
            score=score,
            reduce=reduce,
            chunk=chunk,
            progress=progress,
            rank=region_ranks(segments, regions, mean=True),
        )(x, target, attribution)
        there = jax.vmap(lambda s: jnp.zeros(regions, bool).at[s.ravel()].set(True))(segments)
        last = there.sum(1)
        whole = found.curve[:, :1]
        share = jnp.where(whole > 0, found.curve / jnp.where(whole > 0, whole, 1), jnp.nan)
        middle = (share[:, 1:] + share[:, :-1]) / 2
        inside = jnp.arange(regions) < last[:, None]
        return scored(1 - jnp.where(inside, middle, 0).sum(1) / last, found.valid)

    return measure


def _segments(segments: Array, shape: tuple[int, ...], regions: int) -> Array:
    segments = jnp.asarray(segments)
    if segments.shape != shape or not jnp.issubdtype(segments.dtype, jnp.integer):
        raise ValueError(
            f"segments has shape {segments.shape} and dtype {segments.dtype}; expected whole "
            f"numbers from 0, {shape}"
        )
    if is_concrete(segments) and segments.size:
        low, high = int(segments.min()), int(segments.max())
        if low < 0 or high >= regions:
            raise ValueError(f"segments are {low} to {high}; expected 0 to {regions - 1}")
    return segments
