"""Parameters fitted for every image on its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxattr.contract import check_positive
from jaxattr.loops.progress import Progress, report
from jaxattr.types import Array


def minimize(
    losses: Callable[[Any, Array], Any],
    start: Any,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    progress: Progress | None = None,
) -> tuple[Any, Any]:
    """Minimize the sum of losses, each over its own image's parameters, and record each of them.

    Args:
        losses: parameters and the number of steps done to a pytree of losses, each `(B, ...)`.
        start: the parameters to begin with, each array with the batch in front.
        optimizer: an optax optimizer that works elementwise, so that no image sees another.
        steps: how many.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        The parameters, and the losses before each step, each `(B, ..., steps)`.

    Raises:
        ValueError: if `steps` is not positive.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> bowl = lambda p, step: (p - jnp.array([1.0, 3.0])) ** 2
        >>> found, losses = minimize(bowl, jnp.zeros(2), optax.sgd(0.25), 2)
        >>> found.tolist(), losses.tolist()
        ([0.75, 2.25], [[1.0, 0.25], [9.0, 2.25]])
    """
    check_positive("steps", steps)

    def step(state: tuple[Any, Any], i: Array) -> tuple[tuple[Any, Any], Any]:
        parameters, memory = state
        values, pull = jax.vjp(lambda parameters: losses(parameters, i), parameters)
        (gradient,) = pull(jax.tree.map(jnp.ones_like, values))
        update, memory = optimizer.update(gradient, memory, parameters)
        report(progress, i, steps)
        return (optax.apply_updates(parameters, update), memory), values

    state = (start, optimizer.init(start))
    (parameters, _), values = lax.scan(step, state, jnp.arange(steps))
    return parameters, jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), values)


def projected(
    optimizer: optax.GradientTransformation, low: float, high: float
) -> optax.GradientTransformation:
    """Keep parameters within bounds: each step ends at the nearest point inside.

    >>> import jax.numpy as jnp, optax
    >>> fall = lambda p, step: p
    >>> minimize(fall, jnp.ones(1), projected(optax.sgd(0.75), 0, 1), 2)[0].tolist()
    [0.0]
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params)
        return jax.tree.map(lambda p, u: jnp.clip(p + u, low, high) - p, params, updates), state

    return optax.GradientTransformation(optimizer.init, update)
