"""What a map tells of subsets of pixels, and what is seen when these are replaced."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.contract import check_batch, check_positive, resolve_baseline
from jaxattr.image.order import descending
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.metrics.arguments import real
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Score
from jaxattr.scores import Score as Measured
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Baseline, Fun, Key

SubsetMetric: TypeAlias = Callable[[Array, Array, Array], Score]
"""From `x`, `target` and `attribution` to a score of what the map tells of subsets of pixels."""

Subset: TypeAlias = Callable[[Array], Array]
"""From the number of a subset to the pixels in it, bool `(B, H, W)` or `(1, H, W)` for all."""


class Effects(NamedTuple):
    """What a map tells of n subsets of the pixels, and what is seen.

    Attributes:
        told: the sum of the map over each subset, `(B, n)`.
        seen: by how much the score falls when the subset is replaced, `(B, n)`.
        score: that of the whole image, `(B,)`.
        valid: whether the map is finite, `(B,)`.
    """

    told: Array
    seen: Array
    score: Array
    valid: Array


def subset_effects(
    f: Fun,
    x: Array,
    target: Array,
    attribution: Array,
    subsets: Callable[[Array], Subset],
    numbers: Array,
    *,
    baseline: Baseline = 0.0,
    score: Measured,
    reduce: Reduction,
    chunk: int,
    progress: Progress | None,
    noise: Callable[[Array], Array] | None = None,
) -> Effects:
    """Evaluate a model with one subset of the pixels after another replaced.

        told_i = sum_{p in S_i} a_p,    seen_i = s(x) - s(x with S_i replaced)

    Args:
        f: the model.
        x: images.
        target: their classes.
        attribution: maps of their size.
        subsets: from the scores of the pixels `(B, H, W)` to a function of a number to its subset.
        numbers: of the subsets, `(n,)`.
        baseline: what pixels are replaced by.
        score: s, what is measured of the logits.
        reduce: how the channels of an attribution become one number.
        chunk: how many subsets of each image are replaced at once, at most.
        progress: called with the number of subsets done.
        noise: from a subset's number to images that its pixels are replaced by instead.
    """
    check_positive("chunk", chunk)
    x, target = jnp.asarray(x), jnp.asarray(target)
    check_batch(f, x, target)
    a = reduced(attribution, reduce, x.shape[:3])
    subset = subsets(a)
    constant = resolve_baseline(baseline, x)

    def variant(number: Array) -> Array:
        filled = constant if noise is None else noise(number)
        return jnp.where(subset(number)[..., None], filled, x)

    def read(logits: Array, number: Array) -> tuple[Array, Array]:
        told = jnp.where(subset(number), a, 0).sum((1, 2))
        return told, score(logits, target)

    told, left = evaluate_variants(f, variant, numbers, read, chunk=chunk, progress=progress)
    whole = score(real("the logits", lowered(f)(x)), target)
    return Effects(told, whole[:, None] - left, whole, finite(a))


def groups(step: int, *, each: int = 1) -> Callable[[Array], Subset]:
    """Part the pixels into groups of `step`, the most attributed first, with `each` numbers."""
    check_positive("step", step)

    def subsets(a: Array) -> Subset:
        ranks = descending(a) // step
        return lambda number: ranks == number // each

    return subsets


def parts(labels: Array) -> Callable[[Array], Subset]:
    """Take the pixels of each label, `(H, W)`."""
    return lambda a: lambda number: (labels == number)[None]


def draws(key: Key, size: Callable[[Array], Array]) -> Callable[[Array], Subset]:
    """Draw subsets of `size(number)` pixels, the same for all images."""

    def subsets(a: Array) -> Subset:
        shape = a.shape[1:]

        def subset(number: Array) -> Array:
            order = jax.random.permutation(jax.random.fold_in(key, number), shape[0] * shape[1])
            return (order < size(number)).reshape(1, *shape)

        return subset

    return subsets
