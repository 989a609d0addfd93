"""LibraGrad: input times gradient, with the backward paths pruned that unbalance it."""

import jax

from jaxattr.contract import attribution, one_hot, where_finite
from jaxattr.facts import method
from jaxattr.structures.factors import HELD
from jaxattr.tracing.freeze import freeze
from jaxattr.types import Array, Attribution, Fun


@method(cost="2 forward, 1 backward", family="attention", attends=True)
def libragrad(f: Fun) -> Attribution:
    """Multiply the image by a gradient that goes through no factor.

        a = x * d f_x(x)[t] / dx

    where `f_x` is the frozen view: the deviation of normalizations, the softmax of attention, and
    gates, also those in a GELU or SiLU, are numbers. Laws: without biases the map sums to the
    logit; in a network of ReLUs it is input times gradient.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.

    Returns:
        An attribution of the shape of `x`. Cost: two forward passes and a backward pass.

    Raises:
        UnsupportedOperation: if `f` has no frozen view (see `jaxattr.freeze`).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.silu(x.reshape(1, 2))
        >>> a = libragrad(f)(jnp.ones((1, 1, 2, 1)), jnp.array([1]))
        >>> bool(jnp.isclose(a.sum(), jax.nn.silu(1.0)))
        True

    Reference:
        Mehri et al., LibraGrad: balancing gradient flow for universally better vision transformer
        attributions, CVPR 2025.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        frozen = freeze(f, x, hold=(*HELD, "activation"))
        logits, pull = jax.vjp(frozen.logits, x)
        (gradient,) = pull(one_hot(target, logits))
        return where_finite(x * gradient, logits)

    return attribution(f, explain)
