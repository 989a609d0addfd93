"""Attention rollout, and what methods of attention have in common: the token that is classified."""

from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.image.resize import resize
from jaxattr.tracing import taps
from jaxattr.tracing.attending import attention
from jaxattr.types import Array, Attribution, Fun, Grid


@method(cost="1 forward", family="attention", spatial=True, attends=True)
def attention_rollout(f: Fun, *, grid: Grid = None) -> Attribution:
    """Multiply the attention of all blocks, with what passes it by.

        R = prod_b (I + mean_h A_b) / 2,    a = the row of the class token (section 3)

    or the mean of all rows where there is none, without the columns of the tokens before the
    patches. The same for every class. Law: over all tokens each row of `R` sums to 1.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with self-attention, however it is spelled.
        grid: rows and columns of the patches, where the function does not tell.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`, resized bilinearly. Cost: one forward
        pass.

    Raises:
        UnsupportedOperation: if `f` has no self-attention over all tokens.
        ValueError: if the grid is not known, or wrong.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def f(x):
        ...     z = x.reshape(len(x), -1, 1)
        ...     return (jax.nn.softmax(z @ z.swapaxes(1, 2)) @ z).mean(1)
        >>> attention_rollout(f, grid=(2, 2))(jnp.ones((1, 2, 2, 1)), jnp.array([0])).ravel()
        Array([0.25, 0.25, 0.25, 0.25], dtype=float32)

    Reference:
        Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        found = attention(f, x)
        _, weights = found.run(x, found.zeros, {})
        mixed = [(jnp.eye(a.shape[-1], dtype=a.dtype) + a.mean(1)) / 2 for a in weights]
        return token_map(f, x, rolled(mixed), grid)

    return attribution(f, explain)


def rolled(blocks: Sequence[Array]) -> Array:
    """Return the product of matrices `(B, N, N)`, the last block first."""
    return reduce(lambda so_far, block: block @ so_far, blocks)


def token_map(f: Fun, x: Array, relevance: Array, grid: Grid) -> Array:
    """Draw the row of the classified token, or the mean row, of `(B, N, N)` on the grid."""
    rows, columns = grid or taps.split(f, x).grid or (0, 0)
    patches, tokens = rows * columns, relevance.shape[-1]
    if not 0 < patches <= tokens:
        raise ValueError(
            f"how {tokens} tokens lie is not known: say it by grid=(rows, columns)"
            if not patches
            else f"grid is {(rows, columns)}, but there are {tokens} tokens"
        )
    row = relevance[:, 0] if patches < tokens else relevance.mean(1)
    found = row[:, -patches:].reshape(len(x), rows, columns, 1)
    return resize(found, (x.shape[1], x.shape[2]))
