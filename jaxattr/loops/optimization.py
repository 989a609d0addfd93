"""Parameters fitted for every image on its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxattr.contract import broadcast, check_positive
from jaxattr.loops.progress import Progress, report
from jaxattr.tracing.freeze import Frozen
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
        # Optax needs them.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
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


def parameters_like(
    frozen: Frozen, init: ArrayLike | tuple[Array, ...], *, per_channel: bool
) -> tuple[Array, ...]:
    """Return a parameter for each element (or channel) of every activation's output.

    Args:
        frozen: what has activations.
        init: a number or an array that broadcasts to the output of every activation, or an array
            for each of them.
        per_channel: whether a channel has one parameter: the mean of those of its elements.

    Raises:
        ValueError: if there is no activation, or `init` does not fit.
    """
    if not frozen.lines:
        raise ValueError("the function has no activation, so there is nothing to learn")

    def full(slope: Array, value: ArrayLike) -> Array:
        each = broadcast("init", value, slope)
        positions = tuple(range(1, slope.ndim - 1))
        return each.mean(positions, keepdims=True) if per_channel else each

    values = init if isinstance(init, tuple) else [init] * len(frozen.lines)
    if len(values) != len(frozen.lines):
        raise ValueError(
            f"init has {len(values)} arrays; the function has {len(frozen.lines)} activations"
        )
    return tuple(full(line.slope, v) for line, v in zip(frozen.lines, values, strict=True))
