"""What insertion, deletion, MoRF and LeRF have in common: a score as more pixels change."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_batch, check_positive, resolve_baseline
from jaxattr.image.order import descending
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Curve
from jaxattr.scores import Score
from jaxattr.types import Array, Baseline, Fun

PerturbationMetric: TypeAlias = Callable[[Array, Array, Array], Curve]
"""From `x`, `target` and `attribution` to the scores of the changed images."""

Replace: TypeAlias = Callable[[Array, Array], Array]
"""From images and which pixels are changed, bool `(B, H, W)`, to images with others there."""


def perturbation_curve(
    f: Fun,
    *,
    before: Baseline,
    after: Baseline,
    counts: Callable[[int], np.ndarray],
    score: Score,
    reduce: Reduction,
    chunk: int,
    progress: Progress | None,
    change: Callable[[Array], Array] = lambda curve: curve,
    check: Callable[[Fun, Array, Array], object] = check_batch,
    rank: Callable[[Array], Array] = descending,
    replace: Replace | None = None,
) -> PerturbationMetric:
    """Score images in which more and more pixels are changed, the most attributed first.

        curve_i = score( f( before(x), its counts_i most attributed pixels those of after(x) ) )

    Args:
        f: the model.
        before: images to those with no pixel changed.
        after: images to those with all pixels changed.
        counts: the number of pixels of an image to `(n + 1,)` numbers of changed pixels, rising
            from 0. The area under the curve is taken over them, scaled to [0, 1].
        score: what is measured of the logits `(B, K)` and the target: `(B,)`.
        reduce: from an attribution's channels to what ranks the pixels, the largest first.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.
        change: curves `(B, n + 1)` of the score to what is reported.
        check: raises `ValueError` for a wrong `x` or `target`.
        rank: from scores `(B, H, W)` to ranks from 0; pixels that change together have one rank.
        replace: what is put for the changed pixels, where it depends on which they are.

    Returns:
        The metric. An image has no score where its map or its curve is not finite.
    """
    check_positive("chunk", chunk)

    def measure(x: Array, target: Array, attribution: Array) -> Curve:
        x, target = jnp.asarray(x), jnp.asarray(target)
        check(f, x, target)
        scores = reduced(attribution, reduce, x.shape[:3])
        ranks = rank(scores)
        start, end = (resolve_baseline(images, x) for images in (before, after))
        changed = counts(x.shape[1] * x.shape[2])

        def variant(count: Array) -> Array:
            chosen = ranks < count
            filled = end if replace is None else replace(start, chosen)
            return jnp.where(chosen[..., None], filled, start)

        def read(logits: Array, count: Array) -> Array:
            return score(logits, target)

        found = evaluate_variants(
            f, variant, jnp.asarray(changed), read, chunk=chunk, progress=progress
        )
        curve = change(found)
        valid = finite(scores) & jnp.isfinite(curve).all(1)
        curve = jnp.where(valid[:, None], curve, jnp.nan)
        share = (changed / changed[-1]).astype(curve.dtype)
        return Curve(curve, jnp.trapezoid(curve, share, axis=1), valid)

    return measure


def unchanged(x: Array) -> Array:
    """Return the images as they are."""
    return x


def by_pixels(step: int) -> Callable[[int], np.ndarray]:
    """Change `step` more pixels at every step, up to all of them.

    The last step counts as a whole one even where fewer pixels are left, as in RISE.

    >>> by_pixels(4)(10).tolist()
    [0, 4, 8, 12]
    """
    check_positive("step", step)
    return lambda pixels: np.arange(-(-pixels // step) + 1) * step


def by_fraction(fraction: float, steps: int) -> Callable[[int], np.ndarray]:
    """Change a fraction of the pixels in steps of equal size, up to rounding.

    >>> by_fraction(0.5, 4)(20).tolist()
    [0, 2, 5, 8, 10]
    """
    check_positive("steps", steps)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected more than 0 and at most 1")

    def counts(pixels: int) -> np.ndarray:
        if fraction * pixels < 1:
            raise ValueError(f"fraction is {fraction}, which is less than one of {pixels} pixels")
        return np.rint(np.linspace(0, fraction, steps + 1) * pixels).astype(int)

    return counts
