"""How much maps change when images change a little: sensitivity, Lipschitz estimate, continuity."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import check_positive, need_key
from jaxattr.loops.progress import Progress
from jaxattr.loops.samples import evaluate_samples
from jaxattr.metrics.arguments import batch_of, check_range, real
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array, Attribution, Key


class Sensitivity(Protocol):
    """A metric of an attribution method."""

    def __call__(self, x: Array, target: Array, *, key: Key) -> Score:
        """Return the score of every image."""
        ...


def max_sensitivity(
    attribute: Attribution,
    *,
    radius: float = 0.02,
    samples: int = 10,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure how much a map changes when its image changes a little.

        score = max over x' of |A(x') - A(x)| / |A(x)|,    |x' - x|_inf <= radius

    with Euclidean norms over each map, `x'` drawn uniformly. Lower is better.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for every image.
        radius: in units of the model's input.
        samples: how many `x'` are drawn.
        chunk: how many `x'` are explained at once, at most; memory grows with it, not with
            `samples`.
        progress: called with the number of `x'` done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `key` to a score; none where the map is zero or not
        finite. Cost: samples + 1 attributions.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> f = lambda x: x.sum((1, 2))  # its gradient is the same for every image
        >>> measure = jax.jit(max_sensitivity(jaxattr.saliency(f)))
        >>> measure(jnp.ones((1, 2, 2, 1)), jnp.array([0]), key=jax.random.key(0)).score.item()
        0.0

    Reference:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (in)fidelity and sensitivity of
        explanations, NeurIPS 2019, definition 3.1; the ratio and the defaults are Captum's.
    """
    compare = _over_neighbors(attribute, radius, samples, chunk, progress, "max_sensitivity")

    def measure(x: Array, target: Array, *, key: Key) -> Score:
        moved, _, size = compare(batch_of(x), jnp.asarray(target), key)
        return _relative(moved.max(0), size)

    return measure


def average_sensitivity(
    attribute: Attribution,
    *,
    radius: float = 0.02,
    samples: int = 10,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure how much a map changes on average when its image changes a little.

        score = mean over x' of |A(x') - A(x)| / |A(x)|,    |x' - x|_inf <= radius

    with Euclidean norms over each map, `x'` drawn uniformly. Lower is better. Law: at most
    `max_sensitivity` of the same key.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for every image.
        radius: in units of the model's input.
        samples: how many `x'` are drawn.
        chunk: how many `x'` are explained at once, at most; memory grows with it, not with
            `samples`.
        progress: called with the number of `x'` done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `key` to a score; none where the map is zero or not
        finite. Cost: samples + 1 attributions.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> f = lambda x: x.sum((1, 2))  # its gradient is the same for every image
        >>> measure = jax.jit(average_sensitivity(jaxattr.saliency(f)))
        >>> measure(jnp.ones((1, 2, 2, 1)), jnp.array([0]), key=jax.random.key(0)).score.item()
        0.0

    Reference:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (in)fidelity and sensitivity of
        explanations, NeurIPS 2019; Bhatt, Weller and Moura, Evaluating and aggregating
        feature-based model explanations, IJCAI 2020, definition 3.
    """
    compare = _over_neighbors(attribute, radius, samples, chunk, progress, "average_sensitivity")

    def measure(x: Array, target: Array, *, key: Key) -> Score:
        moved, _, size = compare(batch_of(x), jnp.asarray(target), key)
        return _relative(moved.mean(0), size)

    return measure


def local_lipschitz_estimate(
    attribute: Attribution,
    *,
    radius: float = 0.02,
    samples: int = 10,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Estimate the Lipschitz constant of an attribution around an image.

        score = max over x' of |A(x') - A(x)| / |x' - x|,    |x' - x|_inf <= radius

    with Euclidean norms, `x'` drawn uniformly. Lower is better. Law: k times as much for k times
    the map.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for every image.
        radius: in units of the model's input.
        samples: how many `x'` are drawn.
        chunk: how many `x'` are explained at once, at most.
        progress: called with the number of `x'` done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `key` to a score, in units of the map by units of the input.
        Cost: samples + 1 attributions.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> triple = lambda x, target, key=None: 3 * x
        >>> measure = local_lipschitz_estimate(triple)
        >>> found = jax.jit(measure)(jnp.ones((1, 2, 2, 1)), jnp.array([0]), key=jax.random.key(0))
        >>> round(found.score.item(), 3)
        3.0

    Reference:
        Alvarez-Melis and Jaakkola, On the robustness of interpretability methods, ICML workshop
        2018, section 3.
    """
    compare = _over_neighbors(
        attribute, radius, samples, chunk, progress, "local_lipschitz_estimate"
    )

    def measure(x: Array, target: Array, *, key: Key) -> Score:
        moved, distance, _ = compare(batch_of(x), jnp.asarray(target), key)
        return scored((moved / distance).max(0))

    return measure


def continuity(
    attribute: Attribution,
    *,
    steps: int = 28,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Callable[[Array, Array], Score]:
    """Measure how much a map changes as its image moves sideways.

        score = max over d of |A(x_d) - A(x)|_1 / |x_d - x|_2

    `x_d` is the image moved by d pixels, with zeros where it comes in: `steps` of the distances
    from -W to W, equally spaced, without 0. Lower is better. The map is not moved back: a method
    that follows the object changes as much as the image does.

    Args:
        attribute: any attribution that draws no random numbers.
        steps: how many distances.
        chunk: how many of them are explained at once, at most.
        progress: called with the number of distances done, up to a hundred times.

    Returns:
        A function of `x` and `target` to a score; none for an image of zeros. Cost: steps + 1
        attributions.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> same = lambda x, target, key=None: x
        >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)  # moved to (0, 1), and out of sight
        >>> round(jax.jit(continuity(same, steps=4))(x, jnp.array([0])).score.item(), 4)
        1.4142

    Reference:
        Montavon, Samek and Mueller, Methods for interpreting and understanding deep neural
        networks, Digital Signal Processing 73, 2018, section 6.1.
    """
    check_positive("steps", steps)

    def measure(x: Array, target: Array) -> Score:
        x, target = batch_of(x), jnp.asarray(target)
        width = x.shape[2]
        each = np.linspace(-width, width, steps + 1 - steps % 2).round().astype(int)
        still = real("the attribution", attribute(x, target))

        def change(distance: Array, x: Array, target: Array, still: Array) -> Array:
            at = jnp.arange(width) - distance
            inside = ((at >= 0) & (at < width))[:, None]
            moved = jnp.where(inside, jnp.take(x, at, axis=2, mode="clip"), 0)
            length = _norm(moved - x)
            gained = jnp.abs(attribute(moved, target) - still).reshape(len(x), -1).sum(1)
            return jnp.where(length > 0, gained / jnp.where(length > 0, length, 1), -jnp.inf)

        given = (jnp.asarray(each[each != 0]), x, target, still)
        found = evaluate_samples(change, *given, chunk=chunk, progress=progress)
        return scored(found.max(0))

    return measure


def _over_neighbors(
    attribute: Attribution,
    radius: float,
    samples: int,
    chunk: int,
    progress: Progress | None,
    name: str,
) -> Callable[[Array, Array, Key], tuple[Array, Array, Array]]:
    """Return the lengths `(samples, B)` of changes of maps and of images, and `(B,)` of maps."""
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    check_range("radius", radius, 0)

    def compare(x: Array, target: Array, key: Key) -> tuple[Array, Array, Array]:
        ours, theirs = jax.random.split(need_key(key, name))
        explain = lambda *at: real("the attribution", attribute(*at, key=theirs))
        still = explain(x, target)

        def change(key: Key, x: Array, target: Array, still: Array) -> tuple[Array, Array]:
            near = x + jax.random.uniform(key, x.shape[1:], x.dtype, -radius, radius)
            return _norm(explain(near, target) - still), _norm(near - x)

        given = (jax.random.split(ours, samples), x, target, still)
        moved, distance = evaluate_samples(change, *given, chunk=chunk, progress=progress)
        return moved, distance, _norm(still)

    return compare


def _relative(moved: Array, size: Array) -> Score:
    return scored(jnp.where(size > 0, moved / jnp.where(size > 0, size, 1), jnp.nan))


def _norm(a: Array) -> Array:
    return jnp.sqrt((a**2).sum(tuple(range(1, a.ndim))))
