"""Infidelity: how well a map predicts what perturbations of the image do."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr import scores
from jaxattr.contract import (
    check_batch,
    check_positive,
    need_key,
)
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.metrics.arguments import real
from jaxattr.metrics.results import Score, scored
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Fun, Key

Perturb: TypeAlias = Callable[[Key, Array], Array]
"""From a key and one image `(H, W, C)` to what is subtracted from it, of the same shape."""


class RandomMetric(Protocol):
    """A metric of a model that draws random numbers."""

    def __call__(self, x: Array, target: Array, attribution: Array, *, key: Key) -> Score:
        """Return the score of every image."""
        ...


def gaussian(*, std: float = 0.2) -> Perturb:
    """Subtract Gaussian noise from every pixel.

    Args:
        std: its standard deviation, in units of the model's input.

    Returns:
        A function of a key and an image `(H, W, C)` to what is subtracted from it.
    """
    return lambda key, x: std * jax.random.normal(key, x.shape, x.dtype)


def noisy_baseline(*, std: float = 0.2) -> Perturb:
    """Replace the image by Gaussian noise, the first perturbation of the paper.

    Args:
        std: its standard deviation, in units of the model's input.

    Returns:
        A function of a key and an image `(H, W, C)` to what is subtracted from it.
    """
    return lambda key, x: x - std * jax.random.normal(key, x.shape, x.dtype)


def square(*, size: int) -> Perturb:
    """Set a square of pixels at a random place to zero, the second perturbation of the paper.

    Args:
        size: its side in pixels.

    Returns:
        A function of a key and an image `(H, W, C)` to what is subtracted from it.
    """

    def take(key: Key, x: Array) -> Array:
        inside = []
        for axis, part in enumerate(jax.random.split(key)):
            start = jax.random.randint(part, (), 0, x.shape[axis] - size + 1)
            at = jnp.arange(x.shape[axis])
            inside.append((at >= start) & (at < start + size))
        return jnp.where((inside[0][:, None] & inside[1])[..., None], x, 0)

    return take


def infidelity(
    f: Fun,
    *,
    perturb: Perturb | None = None,
    samples: int = 10,
    rescale: bool = False,
    score: scores.Score = scores.logit,
    chunk: int = 16,
    progress: Progress | None = None,
) -> RandomMetric:
    """Measure how badly a map predicts what perturbations of the image do to the score.

        score = mean over I of ( beta <I, a> - (s(x) - s(x - I)) )^2

    Lower is better. Laws: 0 for a model linear in the image and its gradient; with `rescale`,
    the same for every multiple of the map.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        perturb: draws I; by default `gaussian()`. Also `noisy_baseline()` and `square(size=8)`.
            All images of a batch have the same draws.
        samples: how many are drawn.
        rescale: whether `beta` is the factor of the map that makes the score smallest, rather
            than 1.
        score: `s`, of `jaxattr.scores`, what the map explains.
        chunk: how many perturbations of each image are evaluated at once, at most.
        progress: called with the number of perturbations done, up to a hundred times.

    Returns:
        A function of `x`, `target`, `attribution` and `key` to a score in squared units of
        `s`. The map must be one per unit of input, as a gradient is, not multiplied by the
        image; a map without channels stands for each of them. Cost: samples + 1 forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: 3 * x.sum((1, 2))
        >>> x, target = jnp.ones((1, 2, 2, 1)), jnp.array([0])
        >>> measure = infidelity(f, perturb=square(size=1))
        >>> found = [measure(x, target, a * x, key=jax.random.key(0)).score for a in (3.0, 1.0)]
        >>> [score.item() for score in found]  # the gradient, and a third of it
        [0.0, 4.0]

    Reference:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (in)fidelity and sensitivity of
        explanations, NeurIPS 2019, definition 2.1.
    """
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    draw = gaussian() if perturb is None else perturb

    def measure(x: Array, target: Array, attribution: Array, *, key: Key) -> Score:
        x, target = jnp.asarray(x), jnp.asarray(target)
        check_batch(f, x, target)
        a = real("the attribution", attribution)
        a = a if a.ndim == 4 else a[..., None]
        if a.shape[:3] != x.shape[:3] or a.shape[3] not in (1, x.shape[3]):
            raise ValueError(f"the attribution has shape {a.shape}; the images have {x.shape}")
        keys = jax.random.split(need_key(key, "infidelity"), samples)

        def taken(key: Key) -> Array:
            return jax.vmap(lambda image: draw(key, image))(x)

        def read(logits: Array, key: Key) -> tuple[Array, Array]:
            told = (taken(key) * a).sum((1, 2, 3))
            return score(logits, target), told.astype(logits.dtype)

        left, told = evaluate_variants(
            f, lambda key: x - taken(key), keys, read, chunk=chunk, progress=progress
        )
        seen = score(real("the logits", lowered(f)(x)), target)[:, None] - left
        power = (told**2).mean(1)
        best = (told * seen).mean(1) / jnp.where(power > 0, power, 1)
        beta = best if rescale else jnp.ones_like(best)
        return scored(((beta[:, None] * told - seen) ** 2).mean(1))

    return measure
