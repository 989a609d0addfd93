"""DeepSHAP: DeepLIFT, averaged over references."""

from jax.typing import ArrayLike

from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.methods.deeplift import deeplift
from jaxattr.methods.expected import expected
from jaxattr.types import Attribution, Fun


@method(cost="for each reference 2 forward, 1 backward", family="relevance")
def deep_shap(
    f: Fun,
    *,
    references: ArrayLike = 0.0,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Average DeepLIFT by the Rescale rule over references.

        a = 1/n sum_i DeepLIFT(x; x'_i)

    Law (completeness): `a` sums to `f(x)[t]` less the mean of `f(x'_i)[t]`, to rounding.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        references: images that stand for the data, `(N, H, W, C)`, or a number for a uniform one.
        chunk: how many references are taken at once; memory grows with it, not with their number.
        progress: called with the number of references done, up to a hundred times.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: two forward passes and one backward for
        every reference.

    Raises:
        UnsupportedOperation: as `deeplift` does.
        ValueError: if the references do not fit the images.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x.sum((1, 2)) - 1)
        >>> references = jnp.array([0.0, 2.0]).reshape(2, 1, 1, 1) * jnp.ones((2, 1, 2, 1))
        >>> a = deep_shap(f, references=references)
        >>> a(jnp.full((1, 1, 2, 1), 2.0), jnp.array([0])).ravel()
        Array([0.75, 0.75], dtype=float32)

    Reference:
        Lundberg and Lee, A unified approach to interpreting model predictions, NeurIPS 2017.
    """
    return expected(deeplift, f, references=references, chunk=chunk, progress=progress)
