"""Fitting parameters of a backward pass, for every image on its own."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxattr.targets import check_positive
from jaxattr.tracing.freeze import Frozen
from jaxattr.types import Array

Progress: TypeAlias = Callable[[int], None]
"""Told how many steps are done."""


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
    check_positive("steps", steps)
    every = -(-steps // 100)

    def step(state: tuple[Any, Any], i: Array) -> tuple[tuple[Any, Any], Array]:
        parameters, memory = state
        losses, pull = jax.vjp(loss, parameters)
        (gradient,) = pull(jnp.ones_like(losses))
        update, memory = optimizer.update(gradient, memory, parameters)
        if progress is not None:
            tell = partial(jax.debug.callback, partial(_tell, progress), i + 1)
            lax.cond((i + 1) % every == 0, tell, lambda: None)
        return (optax.apply_updates(parameters, update), memory), losses

    state = (start, optimizer.init(start))
    (parameters, _), losses = lax.scan(step, state, jnp.arange(steps))
    return parameters, losses.T


def _tell(progress: Progress, done: Array) -> None:
    progress(int(done))


def parameters_like(frozen: Frozen, value: float, *, per_channel: bool) -> tuple[Array, ...]:
    """Return a parameter for each element (or channel) behind every activation of each image."""
    if not frozen.lines:
        raise ValueError("the function has no activation, so there is nothing to learn")

    def full(slope: Array) -> Array:
        shape = slope.shape
        if per_channel:
            shape = (shape[0], *[1] * (len(shape) - 2), shape[-1])
        return jnp.full(shape, value, slope.dtype)

    return tuple(full(line.slope) for line in frozen.lines)
