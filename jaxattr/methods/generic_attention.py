"""Generic attention explainability: relevance through the attention of all blocks."""

from functools import reduce

import jax.numpy as jnp

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.methods.attention_rollout import token_map
from jaxattr.methods.gradient_attention import weighted_attention
from jaxattr.types import Array, Attribution, Fun, Grid


@method(cost="1 forward, 1 backward", family="attention", spatial=True, attends=True)
def generic_attention(f: Fun, *, grid: Grid = None) -> Attribution:
    """Follow relevance through the gradient-weighted attention of all blocks.

        R <- R + mean_h max(dy_t / dA_b * A_b, 0) R,    R = I at first      (eqs. 5, 6)

    and take the row of the class token, or the mean of all rows where there is none.

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
        >>> generic_attention(f, grid=(2, 2))(jnp.ones((1, 2, 2, 1)), jnp.array([0])).ravel()
        Array([0.0625, 0.0625, 0.0625, 0.0625], dtype=float32)

    Reference:
        Chefer, Gur and Wolf, Generic attention-model explainability for interpreting bi-modal and
        encoder-decoder transformers, ICCV 2021.

    Differs from the authors' code in nothing for self-attention; other attention is passed by.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        blocks = weighted_attention(f, x, target)
        start = jnp.broadcast_to(jnp.eye(blocks[0].shape[-1], dtype=x.dtype), blocks[0].shape)
        relevance = reduce(lambda r, block: r + block @ r, blocks, start)
        return token_map(f, x, relevance - start, grid)

    return attribution(f, explain)
