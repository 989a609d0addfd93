"""A model's answers to many variants of each image, in memory that does not grow with them."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.targets import check_images, check_targets, count_classes
from jaxattr.tracing.rewrite import with_rules
from jaxattr.types import Array, Fun

Output: TypeAlias = Callable[[Array, Array], Array]
"""From logits `(B, K)` and classes `(B,)` to what is measured, `(B,)`."""


def probability(logits: Array, target: Array) -> Array:
    """Return the probability of the class, by softmax.

    >>> import jax.numpy as jnp
    >>> probability(jnp.zeros((1, 4)), jnp.array([2])).item()
    0.25
    """
    return activation(jax.nn.softmax(logits), target)


def activation(logits: Array, target: Array) -> Array:
    """Return the logit of the class.

    A class out of range has NaN; nothing is counted from the end.
    """
    inside = (target >= 0) & (target < logits.shape[-1])
    index = jnp.where(inside, target, 0)[..., None]
    found = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
    return jnp.where(inside, found, jnp.nan)


def check_batch(f: Fun, x: Array, target: Array) -> None:
    """Raise `ValueError` unless `x` and `target` are what `f` can answer for."""
    check_images(x)
    check_targets(target, x.shape[0], count_classes(f, x))


def answers(
    f: Fun,
    variant: Callable[[Array], Array],
    numbers: Array,
    read: Callable[[Array, Array], Any],
    *,
    chunk: int,
) -> Any:
    """Evaluate a model on variants of a batch of images, a chunk of them after another.

    `f` is read and lowered by `with_rules`, and is traced once. Chunks are made about equal, so
    that little is computed in vain: for 225 variants and chunks of at most 16, nothing.

    Args:
        f: the model.
        variant: one of `numbers` to the images `(B, H, W, C)` that it stands for.
        numbers: what tells the variants apart, `(n,)`.
        read: logits `(B, K)`, in at least float32, and the variant's number to what is kept of
            them, a pytree of `(B,)`.
        chunk: how many variants of each image are evaluated at once, at most.

    Returns:
        The pytree with `(B, n)` for each `(B,)`.
    """
    n = numbers.shape[0]
    turns = -(-n // chunk)
    size = -(-n // turns)
    order = jnp.minimum(jnp.arange(turns * size), n - 1).reshape(turns, size)
    lowered = with_rules(f, {})

    def turn(numbers: Array) -> Any:
        images = jax.vmap(variant)(numbers)
        logits = lowered(images.reshape(-1, *images.shape[2:]))
        wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return jax.vmap(read)(wide.reshape(*images.shape[:2], -1), numbers)

    values = lax.map(turn, numbers[order])
    return jax.tree.map(lambda a: a.reshape(turns * size, -1)[:n].T, values)
