"""Attention weighted by its gradient."""

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, one_hot, where_finite
from jaxattr.facts import method
from jaxattr.methods.attention_rollout import token_map
from jaxattr.tracing.attending import attention
from jaxattr.types import Array, Attribution, Fun, Grid


@method(cost="1 forward, 1 backward", family="attention", spatial=True, attends=True)
def gradient_attention(f: Fun, *, grid: Grid = None) -> Attribution:
    """Weight the attention of the last block by its gradient.

        a = mean_h max(dy_t / dA * A, 0),    the row of the class token

    or the mean of all rows where there is none.

    Args:
        f: as for `attention_rollout`.
        grid: as for `attention_rollout`.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: one forward and one backward pass.

    Raises:
        UnsupportedOperation: if `f` has no self-attention over all tokens.
        ValueError: if the grid is not known, or wrong.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def f(x):
        ...     z = x.reshape(len(x), -1, 1)
        ...     return (jax.nn.softmax(z @ z.swapaxes(1, 2)) @ z).mean(1)
        >>> gradient_attention(f, grid=(2, 2))(jnp.ones((1, 2, 2, 1)), jnp.array([0])).ravel()
        Array([0.0625, 0.0625, 0.0625, 0.0625], dtype=float32)

    Reference:
        Barkan et al., Grad-SAM: explaining transformers via gradient self-attention maps, CIKM
        2021, for the last block.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        return token_map(f, x, weighted_attention(f, x, target)[-1], grid)

    return attribution(f, explain)


def weighted_attention(
    f: Fun, x: Array, target: Array, values: list[Array] | None = None
) -> list[Array]:
    """Return `mean_h max(dy_t / dA * A, 0)` of each block, `(B, N, N)`.

    Args:
        f: images to logits.
        x: images.
        target: classes.
        values: what takes the place of the attention weights `A` themselves.
    """
    found = attention(f, x)
    logits, pull, weights = jax.vjp(
        lambda added: found.run(x, added, {}), found.zeros, has_aux=True
    )
    (gradients,) = where_finite(pull(one_hot(target, logits)), logits)
    return [
        jnp.maximum(g * a, 0).mean(1) for g, a in zip(gradients, values or weights, strict=True)
    ]
