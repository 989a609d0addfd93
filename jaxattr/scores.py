"""What of the logits is measured: logits `(B, K)` and classes `(B,)` to `(B,)`."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.types import Array, Fun

Score: TypeAlias = Callable[[Array, Array], Array]
"""From logits `(B, K)` and classes `(B,)` to a number for each image, `(B,)`."""


def chosen(logits: Array, target: Array) -> Array:
    """Mark each image's class among its logits, `(B, K)`, for classes of any integer dtype.

    >>> import jax.numpy as jnp
    >>> chosen(jnp.zeros((1, 3)), jnp.array([1])).tolist()
    [[False, True, False]]
    """
    target = jnp.asarray(target)
    # A narrow dtype cannot count all classes: 259 would be 3.
    wide = target.astype(jnp.promote_types(target.dtype, jnp.int32))
    return jax.nn.one_hot(wide, logits.shape[-1], dtype=bool)


def logit(logits: Array, target: Array) -> Array:
    """Return the logit of the class, the activation before the softmax.

    A class out of range has NaN; nothing is counted from the end.

    >>> import jax.numpy as jnp
    >>> logit(jnp.array([[1.0, 4.0], [2.0, 3.0]]), jnp.array([1, 2]))
    Array([ 4., nan], dtype=float32)
    """
    ours = chosen(logits, target)
    return jnp.where(ours.any(-1), jnp.where(ours, logits, 0).sum(-1), jnp.nan)


def probability(logits: Array, target: Array) -> Array:
    """Return the probability of the class, by softmax: of two logits or more.

    >>> import jax.numpy as jnp
    >>> probability(jnp.zeros((1, 4)), jnp.array([2])).item()
    0.25
    """
    if logits.shape[-1] == 1:
        raise ValueError(
            "the softmax of one logit is 1 for every image: pass score=jaxattr.scores.sigmoid for "
            "a binary classifier of one logit"
        )
    return logit(jax.nn.softmax(logits), target)


def log_probability(logits: Array, target: Array) -> Array:
    """Return the logarithm of the class's probability: the negative log-likelihood, negated.

    Its gradient is `one_hot(t) - softmax(logits)`: near zero where the class is certain.

    >>> import jax.numpy as jnp
    >>> log_probability(jnp.zeros((1, 4)), jnp.array([2])).round(3)
    Array([-1.386], dtype=float32)
    """
    return logit(jax.nn.log_softmax(logits), target)


def sigmoid(logits: Array, target: Array) -> Array:
    """Return the probability of the class by itself, by the logistic function of its logit.

    For binary classifiers of one logit, of which the class is 0, and for labels that do not exclude
    each other.

    >>> import jax.numpy as jnp
    >>> sigmoid(jnp.zeros((1, 1)), jnp.array([0])).item()
    0.5
    """
    return jax.nn.sigmoid(logit(logits, target))


def probabilities(logits: Array, *, multi_label: bool = False) -> Array:
    """Return the probabilities of all classes, `(B, K)`.

    They are of a softmax where one class excludes the others, and logistic where none does: of
    labels of which an image may have several, and of the one logit of a binary classifier.

    >>> import jax.numpy as jnp
    >>> probabilities(jnp.zeros((1, 4))).tolist(), probabilities(jnp.zeros((1, 1))).tolist()
    ([[0.25, 0.25, 0.25, 0.25]], [[0.5]])
    """
    exclusive = not multi_label and logits.shape[-1] > 1
    return jax.nn.softmax(logits) if exclusive else jax.nn.sigmoid(logits)


def margin(logits: Array, target: Array) -> Array:
    """Return by how much the logit of the class exceeds the largest of the others.

    >>> import jax.numpy as jnp
    >>> margin(jnp.array([[1.0, 4.0, 2.0]]), jnp.array([1])).item()
    2.0
    """
    if logits.shape[-1] == 1:
        raise ValueError(
            "a classifier of one logit has no other class: pass score=jaxattr.scores.logit"
        )
    others = jnp.where(chosen(logits, target), -jnp.inf, logits)
    return logit(logits, target) - others.max(-1)


def accuracy(logits: Array, target: Array) -> Array:
    """Return 1 where the class has the highest logit, and else 0.

    >>> import jax.numpy as jnp
    >>> accuracy(jnp.array([[1.0, 4.0], [1.0, 4.0]]), jnp.array([1, 0])).tolist()
    [1.0, 0.0]
    """
    return (logits.argmax(-1) == target).astype(logits.dtype)


def margins(logits: Array) -> Array:
    """Return by how much the logit of every class exceeds the largest of the others, `(B, K)`.

    Of the class of the largest logit it is how far the runner-up is behind.

    >>> import jax.numpy as jnp
    >>> margins(jnp.array([[1.0, 4.0, 2.0]])).tolist()
    [[-3.0, 2.0, -2.0]]
    """
    _need_others(logits)
    none = jnp.full_like(logits[:, :1], -jnp.inf)
    before = jnp.concatenate([none, lax.cummax(logits[:, :-1], axis=1)], 1)
    after = jnp.concatenate([lax.cummax(logits[:, 1:], axis=1, reverse=True), none], 1)
    return logits - jnp.maximum(before, after)


def log_odds(logits: Array) -> Array:
    """Return `log p - log(1 - p)` of every class by softmax, `(B, K)`.

    That is a logit less the log-sum-exp of the others, which loses no digits near `p = 1`. It takes
    memory for `K^2` numbers.

    >>> import jax.numpy as jnp
    >>> log_odds(jnp.array([[2.0, 0.5]])).tolist(), log_odds(jnp.array([[50.0, 0.0]])).tolist()
    ([[1.5, -1.5]], [[50.0, -50.0]])
    """
    _need_others(logits)
    classes = np.arange(logits.shape[-1])
    others = np.array([np.delete(classes, k) for k in classes])
    return logits - jax.nn.logsumexp(logits[:, others], -1)


def _need_others(logits: Array) -> None:
    if logits.shape[-1] == 1:
        raise ValueError("a classifier of one logit has no other class: its logit is the log-odds")


def scalar(f: Callable[..., Any], read: Callable[[Any], Array]) -> Fun:
    """Make a classifier of any number that can be read off what a function returns.

        g(x)_k = read(f(x))_k

    so that every method and metric is of that number: the margin to the runner-up,
    `scalar(f, margins)`, a class in a region of a segmentation, the score of a box, the similarity
    of two embeddings.

    Args:
        f: images `(B, H, W, C)` to an array, or to a dict or another pytree of arrays, the batch in
            front of each.
        read: what `f` returns to numbers `(B,)`, which become the one class 0, or `(B, K)`, which
            become as many. Like `f` it is to treat every image by itself.

    Returns:
        Images to logits `(B, 1)` or `(B, K)`.

    Raises:
        ValueError: if `read` returns something else.

    Example:
        >>> import jax.numpy as jnp, jaxattr
        >>> embed = lambda x: {"embedding": x.sum((1, 2))}
        >>> g = scalar(embed, lambda out: out["embedding"] @ jnp.array([1.0, -1.0]))
        >>> jaxattr.saliency(g)(jnp.ones((1, 1, 1, 2)), jnp.array([0])).ravel()
        Array([ 1., -1.], dtype=float32)
    """

    def g(x: Array, /) -> Array:
        found = read(f(x))
        shape = getattr(found, "shape", None)
        if shape is None or len(shape) not in (1, 2) or shape[0] != x.shape[0]:
            what = f"shape {shape}" if shape is not None else f"a {type(found).__name__}"
            raise ValueError(
                f"read returned {what} for images of shape {x.shape}; expected one number for each "
                f"image, shape ({x.shape[0]},), or one for each image and class"
            )
        return found[:, None] if found.ndim == 1 else found

    return g
