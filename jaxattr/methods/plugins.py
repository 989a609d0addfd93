"""What a gradient passes at an activation in LPR: the plugins, each with parameters to learn."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.loops.optimization import parameters_like
from jaxattr.rules import gates
from jaxattr.tracing.freeze import Frozen
from jaxattr.types import Array, Key

Start: TypeAlias = Callable[..., tuple[Array, ...]]
"""`(frozen, init, per_channel) -> parameters`, an array for each activation, the batch in front."""


class Plugin(NamedTuple):
    """A learned function of the gradient at an activation.

    Attributes:
        start: its parameters at first.
        apply: `(theta, m, g) -> gradient`, of one activation and all images; `m` multiplies `g`
            first, unless it is None.
    """

    start: Start
    apply: Callable[[Array, Array | None, Array], Array]


def _each(frozen: Frozen, init: object, per_channel: bool) -> tuple[Array, ...]:
    return parameters_like(frozen, init, per_channel=per_channel)  # type: ignore[arg-type]


scale = Plugin(_each, gates.scaled)
"""`tanh(theta * m * g)`, a parameter for each element, or for each channel."""


def convolution(key: Key, *, size: int = 3) -> Plugin:
    """Make a plugin of an ordinary convolution, as LPR's ablation has it.

    It is `tanh(theta conv (m * g))`, which mixes the channels, and has `size^2 C^2` parameters for
    an activation of `C` channels, or `C^2` where there are no positions. The paper reports that it
    gives no meaningful map, since such a gradient has little to do with the model. Law: where the
    kernel is the identity it is `scale` with parameters of one.

    Args:
        key: draws the first kernels, normal with variance `1 / (size^2 C)`.
        size: height and width of the kernels, odd.

    Returns:
        A plugin for networks whose channels stand last; `init` and `per_channel` have no effect.

    Raises:
        ValueError: if `size` is not a positive odd number.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; expected a positive odd number of pixels")

    def start(frozen: Frozen, init: object, per_channel: bool) -> tuple[Array, ...]:
        like = _each(frozen, 0.0, False)
        return tuple(map(kernel, jax.random.split(key, len(like)), like))

    def kernel(key: Key, like: Array) -> Array:
        channels, taps = like.shape[-1], (size,) * (like.ndim - 2)
        shape = (*taps, channels, channels)
        drawn = jax.random.normal(key, shape, like.dtype) / (size ** len(taps) * channels) ** 0.5
        return jnp.broadcast_to(drawn, (len(like), *shape))

    def one(theta: Array, g: Array) -> Array:
        spatial = "HWD"[: g.ndim - 1]
        numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        ones = (1,) * len(spatial)
        return lax.conv_general_dilated(g[None], theta, ones, "SAME", dimension_numbers=numbers)[0]

    def apply(theta: Array, m: Array | None, g: Array) -> Array:
        return jnp.tanh(jax.vmap(one)(theta, g if m is None else m * g))

    return Plugin(start, apply)
