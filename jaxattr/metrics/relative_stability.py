"""Relative stability: changes of maps beside those of inputs, of inner values or of logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxattr.contract import at_any_size, check_batch, check_positive, need_key
from jaxattr.loops.progress import Progress
from jaxattr.loops.samples import evaluate_samples
from jaxattr.metrics.arguments import batch_of, check_range, real
from jaxattr.metrics.results import Score, scored
from jaxattr.metrics.stability import Sensitivity
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Fun, Key, Layer

SMALLEST = 1e-6
"""What stands for 0 where something is divided by."""


def relative_input_stability(
    attribute: Attribution,
    f: Fun,
    *,
    radius: float = 0.02,
    samples: int = 10,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure how much a map changes relative to its image (RIS).

        score = max over x' of |(A(x) - A(x')) / A(x)| / max(|(x - x') / x|, e)

    over the `x'`, drawn uniformly with `|x' - x|_inf <= radius`, for which the model predicts the
    same class; values are divided one by one, norms are Euclidean, and e = 1e-6, which also stands
    for a divisor of 0. Lower is better. Law: the same for every multiple of the map.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for every image.
        f: the model, images `(B, H, W, C)` to logits `(B, K)`.
        radius: in units of the model's input.
        samples: how many `x'` are drawn.
        chunk: how many `x'` are explained at once, at most.
        progress: called with the number of `x'` done, up to a hundred times.

    Returns:
        A function of `x`, `target` and `key` to a score; none where no `x'` has the predicted
        class. Cost: samples + 1 attributions and forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> same = lambda x, target, key=None: x  # it changes as its image does
        >>> measure = relative_input_stability(same, lambda x: x.sum((1, 2)))
        >>> found = jax.jit(measure)(jnp.ones((1, 2, 2, 1)), jnp.array([0]), key=jax.random.key(0))
        >>> round(found.score.item(), 3)
        1.0

    Reference:
        Agarwal et al., Rethinking stability for attribution-based explanations, 2022, definition 1.
    """
    kept = lambda x: lambda x: _flat(x)
    return _stability(attribute, f, kept, True, radius, samples, chunk, progress)


def relative_representation_stability(
    attribute: Attribution,
    f: Fun,
    *,
    layer: Layer | None = None,
    radius: float = 0.02,
    samples: int = 10,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure how much a map changes relative to the values of a layer (RRS).

        score = max over x' of |(A(x) - A(x')) / A(x)| / max(|(L(x) - L(x')) / L(x)|, e)

    with `x'`, norms and e as for `relative_input_stability`.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for every image.
        f: the model, images `(B, H, W, C)` to logits `(B, K)`.
        layer: L, by default the last layer with a spatial extent.
        radius: in units of the model's input.
        samples: how many `x'` are drawn.
        chunk: how many `x'` are explained at once, at most.
        progress: called with the number of `x'` done, up to a hundred times.

    Returns:
        A function as for `relative_input_stability`.

    Raises:
        ValueError: if shapes do not fit, the layer is unknown, or `x` or `target` holds a wrong
            value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return 2 * x
        >>> f = lambda x: features(x).sum((1, 2))
        >>> same = lambda x, target, key=None: x
        >>> measure = relative_representation_stability(same, f, layer="features")
        >>> found = jax.jit(measure)(jnp.ones((1, 2, 2, 1)), jnp.array([0]), key=jax.random.key(0))
        >>> round(found.score.item(), 3)
        1.0

    Reference:
        Agarwal et al., Rethinking stability for attribution-based explanations, 2022, definition 2.
    """

    def kept(x: Array) -> Fun:
        before = split(f, x, layer=layer).before
        return lambda x: _flat(before(x))

    return _stability(attribute, f, kept, True, radius, samples, chunk, progress)


def relative_output_stability(
    attribute: Attribution,
    f: Fun,
    *,
    radius: float = 0.02,
    samples: int = 10,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure how much a map changes relative to the logits (ROS).

        score = max over x' of |(A(x) - A(x')) / A(x)| / max(|f(x) - f(x')|, e)

    with `x'`, norms and e as for `relative_input_stability`; the logits are not divided.

    Args:
        attribute: any attribution. If it draws random numbers, it draws the same for every image.
        f: the model, images `(B, H, W, C)` to logits `(B, K)`.
        radius: in units of the model's input.
        samples: how many `x'` are drawn.
        chunk: how many `x'` are explained at once, at most.
        progress: called with the number of `x'` done, up to a hundred times.

    Returns:
        A function as for `relative_input_stability`.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: 4 * x.reshape(len(x), -1)
        >>> x, key = jnp.array([2.0, 1.0]).reshape(1, 1, 2, 1), jax.random.key(0)
        >>> measure = relative_output_stability(lambda x, t, key=None: x[:, :, :1], f)
        >>> 0 < jax.jit(measure)(x, jnp.array([0]), key=key).score.item() <= 1 / 8
        True

    Reference:
        Agarwal et al., Rethinking stability for attribution-based explanations, 2022, definition 3.
    """
    kept = lambda x: lambda x: at_any_size(f, x)
    return _stability(attribute, f, kept, False, radius, samples, chunk, progress)


def _stability(
    attribute: Attribution,
    f: Fun,
    kept: Callable[[Array], Fun],
    relative: bool,
    radius: float,
    samples: int,
    chunk: int,
    progress: Progress | None,
) -> Sensitivity:
    """Measure changes of maps beside those of what `kept` of the images tells of an image."""
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    check_range("radius", radius, 0)

    def measure(x: Array, target: Array, *, key: Key) -> Score:
        x, target = batch_of(x), jnp.asarray(target)
        check_batch(f, x, target)
        ours, theirs = jax.random.split(need_key(key, "relative stability"))
        explain = lambda *at: _flat(real("the attribution", attribute(*at, key=theirs)))
        seen = kept(x)
        told, value, predicted = explain(x, target), seen(x), f(x).argmax(-1)

        def change(
            key: Key, x: Array, target: Array, told: Array, value: Array, predicted: Array
        ) -> Array:
            near = x + jax.random.uniform(key, x.shape[1:], x.dtype, -radius, radius)
            moved = _length((told - explain(near, target)) / _divisor(told))
            by = _length((value - seen(near)) / (_divisor(value) if relative else 1))
            same = f(near).argmax(-1) == predicted
            return jnp.where(same, moved / jnp.maximum(by, SMALLEST), -jnp.inf)

        keys = jax.random.split(ours, samples)
        given = (keys, x, target, told, value, predicted)
        return scored(evaluate_samples(change, *given, chunk=chunk, progress=progress).max(0))

    return measure


def _flat(a: Array) -> Array:
    return a.reshape(len(a), -1)


def _divisor(a: Array) -> Array:
    return jnp.where(a == 0, jnp.asarray(SMALLEST, a.dtype), a)


def _length(a: Array) -> Array:
    return jnp.sqrt((a**2).sum(-1))
