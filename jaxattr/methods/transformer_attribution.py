"""Transformer attribution: attention weighted by its gradient and by its relevance."""

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, one_hot, where_finite
from jaxattr.facts import method
from jaxattr.methods.attention_rollout import rolled, token_map
from jaxattr.methods.gradient_attention import weighted_attention
from jaxattr.rules.assignment import assign
from jaxattr.rules.composites import attn_lrp
from jaxattr.rules.lrp import z_plus
from jaxattr.tracing.attending import attention
from jaxattr.types import Array, Attribution, Fun, Grid

COMPOSITE = attn_lrp()._replace(convolution=z_plus(), dense=z_plus())
"""z+ for layers, AttnLRP's rules for everything else."""


@method(cost="2 forward, 2 backward", family="attention", spatial=True, attends=True)
def transformer_attribution(f: Fun, *, grid: Grid = None) -> Attribution:
    """Roll out attention, each block weighted by its gradient and its relevance.

        prod_b (I + mean_h max(dy_t / dA_b * R(A_b), 0))      (eqs. 13, 14)

    and take the row of the class token, or the mean of all rows where there is none. `R` is
    relevance by the rules below.

    Args:
        f: as for `attention_rollout`.
        grid: as for `attention_rollout`.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: two forward passes, a
        backward pass, and one of relevance.

    Raises:
        UnsupportedOperation: if `f` has no self-attention over all tokens.
        ValueError: if the grid is not known, or wrong.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def f(x):
        ...     z = x.reshape(len(x), -1, 1)
        ...     return (jax.nn.softmax(z @ z.swapaxes(1, 2)) @ z).mean(1)
        >>> transformer_attribution(f, grid=(2, 2))(jnp.ones((1, 2, 2, 1)), jnp.array([0])).ravel()
        Array([0.2578125, 0.2578125, 0.2578125, 0.2578125], dtype=float32)

    Reference:
        Chefer, Gur and Wolf, Transformer interpretability beyond attention visualization, CVPR
        2021.

    Differs from the authors' code in the relevance of attention: z+ for layers as theirs, and
    AttnLRP's rules for normalizations, products and softmax, where theirs scales both factors of a
    product to one sum.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        blocks = weighted_attention(f, x, target, relevances(f, x, target))
        return token_map(
            f, x, rolled([jnp.eye(a.shape[-1], dtype=a.dtype) + a for a in blocks]), grid
        )

    return attribution(f, explain, has_rules=True)


def relevances(f: Fun, x: Array, target: Array) -> list[Array]:
    """Return the relevance of the attention weights of each block, `(B, heads, N, N)`."""
    found = attention(f, x, hold=COMPOSITE.hold)
    rules = assign(COMPOSITE, found.scope)
    logits, pull, _ = jax.vjp(lambda added: found.run(x, added, rules), found.zeros, has_aux=True)
    return where_finite(pull(logits * one_hot(target, logits)), logits)[0]
