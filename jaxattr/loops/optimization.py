"""Fitting parameters of a backward pass, for every image on its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxattr.contract import broadcast, check_positive
from jaxattr.loops.progress import Progress as Progress
from jaxattr.loops.progress import report
from jaxattr.tracing.freeze import Frozen
from jaxattr.types import Array


def minimize(
    loss: Callable[[Any], Array],
    start: Any,
    optimizer: optax.GradientTransformation,
    steps: int,
    progress: Progress | None = None,
) -> tuple[Any, Array]:
    """Minimise a loss of shape `(B,)`, each entry over its own image's parameters.

    Args:
        loss: parameters to one loss per image.
        start: the parameters to begin with, each array with the batch in front.
        optimizer: an optax optimiser that works elementwise, so that no image sees another.
        steps: how many.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        The parameters, and the loss before each step, `(B, steps)`.
    """
    return minimize_terms(lambda parameters, _: loss(parameters), start, optimizer, steps, progress)


def minimize_terms(
    terms: Callable[[Any, Array], Any],
    start: Any,
    optimizer: optax.GradientTransformation,
    steps: int,
    progress: Progress | None = None,
) -> tuple[Any, Any]:
    """Minimise a sum of terms that may change from step to step, and follow each of them.

    Args:
        terms: parameters and the number of steps done to a pytree of losses, each `(B, ...)`.
        start: the parameters to begin with, each array with the batch in front.
        optimizer: an optax optimiser that works elementwise, so that no image sees another.
        steps: how many.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        The parameters, and the terms before each step, each `(B, ..., steps)`.
    """
    check_positive("steps", steps)

    def step(state: tuple[Any, Any], i: Array) -> tuple[tuple[Any, Any], Any]:
        parameters, memory = state
        losses, pull = jax.vjp(lambda parameters: terms(parameters, i), parameters)
        (gradient,) = pull(jax.tree.map(jnp.ones_like, losses))
        update, memory = optimizer.update(gradient, memory, parameters)
        report(progress, i, steps)
        return (optax.apply_updates(parameters, update), memory), losses

    state = (start, optimizer.init(start))
    (parameters, _), losses = lax.scan(step, state, jnp.arange(steps))
    return parameters, jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), losses)


def parameters_like(
    frozen: Frozen, init: float | tuple[Array, ...], *, per_channel: bool
) -> tuple[Array, ...]:
    """Return a parameter for each element (or channel) behind every activation of each image.

    Args:
        frozen: what has activations.
        init: a number, or for each activation an array of its output's shape.
        per_channel: whether a channel has one parameter: the mean of those of its elements.
    """
    if not frozen.lines:
        raise ValueError("the function has no activation, so there is nothing to learn")

    def full(slope: Array, value: float | Array) -> Array:
        each = broadcast("init", value, slope)
        positions = tuple(range(1, slope.ndim - 1))
        return each.mean(positions, keepdims=True) if per_channel else each

    values = init if isinstance(init, tuple) else [init] * len(frozen.lines)
    if len(values) != len(frozen.lines):
        raise ValueError(
            f"init has {len(values)} arrays; the function has {len(frozen.lines)} activations"
        )
    return tuple(full(line.slope, v) for line, v in zip(frozen.lines, values, strict=True))


def projected(
    optimizer: optax.GradientTransformation, low: float, high: float
) -> optax.GradientTransformation:
    """Keep parameters within bounds: each step ends at the nearest point inside."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params)
        return jax.tree.map(lambda p, u: jnp.clip(p + u, low, high) - p, params, updates), state

    return optax.GradientTransformation(optimizer.init, update)
