"""Values and derivatives of convolutions and pools that XLA runs fast on the CPU.

JAX's own run well on accelerators. On the CPU some are slow, by factors and not by percents: a
depthwise convolution, any convolution's derivative inside a loop, the derivative of a max-pool.
`lower` gives an equation another spelling of the same function, value and derivatives; on other
platforms the equation stays as it is. What lies between them is computed more often than it need
be, and takes more memory: see `memory.py`. `docs/speed.md` has the figures.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax.numpy as jnp

from jaxattr.lowering.convolutions import by_taps as by_taps
from jaxattr.lowering.convolutions import convolution
from jaxattr.lowering.memory import materialize as materialize
from jaxattr.lowering.memory import pack_gate as pack_gate
from jaxattr.lowering.memory import with_packed_gates as with_packed_gates
from jaxattr.lowering.pools import max_pool, sum_pool
from jaxattr.lowering.varying import is_laid_out
from jaxattr.types import Array

LOWERED = {
    "conv_general_dilated": convolution,
    "reduce_window_max": max_pool,
    "reduce_window_sum": sum_pool,
}
"""The primitives with another spelling, and what makes it."""


def lower(primitive: str, params: Mapping[str, Any], *avals: Any) -> Callable[..., Array] | None:
    """Return an equation's function in a form that runs fast on the CPU, inside loops too.

    The result has the value of the equation to rounding, and derivatives of any order and mode to
    all operands. On GPU and TPU it is the equation itself.

    Args:
        primitive: the name of the equation's primitive.
        params: its parameters.
        *avals: shape and dtype of its operands.

    Returns:
        A function of the operands, or None where XLA's own is best or the only one.
    """
    if primitive not in LOWERED or any(0 in a.shape or is_laid_out(a) for a in avals):
        return None
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in avals):
        return None
    return _spelled(primitive, tuple(params.items()), *avals)


@lru_cache(maxsize=1024)  # equal layers share what is traced and compiled of them
def _spelled(primitive: str, params: tuple, *avals: Any) -> Callable[..., Array] | None:
    return LOWERED[primitive](dict(params), *avals)
