"""What metrics return, and their means, which leave out images without a score."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxattr.metrics.arguments import real
from jaxattr.types import Array


class Curve(NamedTuple):
    """A model's score as pixels change.

    Attributes:
        curve: the score at every step, `(B, n + 1)`; NaN where there is none.
        score: the area under it on the unit interval, `(B,)`.
        valid: whether an image has a score, `(B,)`: false for a map with a value that is not
            finite and for an image without ground truth.
    """

    curve: Array
    score: Array
    valid: Array


class Score(NamedTuple):
    """One number for each image.

    Attributes:
        score: `(B,)`, NaN where there is none.
        valid: whether an image has a score, `(B,)`.
    """

    score: Array
    valid: Array


class Segmentation(NamedTuple):
    """Intersections over union, `(B,)`.

    Attributes:
        score: of the object.
        background: of all other pixels; the mean of both is the mean IoU of the two classes. NaN
            where both the object and the region are the whole image.
        valid: whether an image has a score.
    """

    score: Array
    background: Array
    valid: Array


class Mean(NamedTuple):
    """A mean, and how many scores it is the mean of; NaN if there are none."""

    mean: Array
    number: Array


def scored(score: Array, where: Array | bool = True) -> Score:
    """Mark the images that have a finite score, and set the others' to NaN."""
    valid = jnp.isfinite(score) & where
    return Score(jnp.where(valid, score, jnp.nan), valid)


def mean(score: Array, valid: Array) -> Mean:
    """Average the scores of the images that have one.

    Args:
        score: `(..., B)`.
        valid: the same shape, as metrics return it.

    Returns:
        Means over the last axis, `(...)`, and how many scores each is the mean of. A score that
        is NaN although `valid` makes the mean NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> m = mean(jnp.array([1.0, jnp.nan, 0.5]), jnp.array([True, False, True]))
        >>> m.mean.item(), m.number.item()
        (0.75, 2)
    """
    score, valid = real("score", score), jnp.asarray(valid)
    count = valid.sum(-1)
    return Mean(_divide(jnp.where(valid, score, 0).sum(-1), count), count)


class ClassMeans(NamedTuple):
    """A mean for every class, and their mean.

    Attributes:
        mean: over the classes that have a score, each counting the same, `()`.
        classes: a mean for each class, `(K,)`, NaN where it has no score.
        number: of the scores of each class, `(K,)`.
    """

    mean: Array
    classes: Array
    number: Array


def class_means(score: Array, valid: Array, target: Array, *, classes: int) -> ClassMeans:
    """Average scores class by class, then over the classes, as pointing games are reported.

    Args:
        score: `(N,)`.
        valid: `(N,)`.
        target: the class of each score, int `(N,)`.
        classes: their number K.

    Returns:
        The means. A class without a score is left out of their mean.

    Example:
        >>> import jax.numpy as jnp
        >>> score, target = jnp.array([1.0, 0.0, 1.0]), jnp.array([0, 0, 2])
        >>> m = class_means(score, jnp.ones(3, bool), target, classes=3)
        >>> m.mean.item(), m.classes.tolist()
        (0.75, [0.5, nan, 1.0])

    Differs from TorchRay, where a class that no image has counts as 0.
    """
    score, valid, target = real("score", score), jnp.asarray(valid), jnp.asarray(target)
    belongs = (target == jnp.arange(classes)[:, None]) & valid
    each = mean(jnp.broadcast_to(score, belongs.shape), belongs)
    return ClassMeans(mean(each.mean, each.number > 0).mean, each.mean, each.number)


def _divide(total: Array, count: Array) -> Array:
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), jnp.nan)
