"""Any method with a baseline, averaged over several of them."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr.contract import attribution, broadcast, check_positive
from jaxattr.loops.moments import moments
from jaxattr.loops.progress import Progress
from jaxattr.portable import portable
from jaxattr.types import Array, Attribution, Explanation, Fun, Key


@portable
def expected(
    method: Callable[..., Attribution],
    f: Fun,
    *,
    references: ArrayLike,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Explanation[Array]:
    """Average any method that takes a baseline over several baselines.

        a = 1/n sum_i A(x; baseline = x'_i)

    Law: what a method's maps sum to, `f(x)[t] - f(x')[t]`, is here `f(x)[t]` less the mean of
    `f(x'_i)[t]`.

    Args:
        method: with a `baseline=`, such as `jaxattr.integrated_gradients`, or a `functools.partial`
            of one.
        f: images `(B, H, W, C)` to logits `(B, K)`.
        references: the baselines, `(N, H, W, C)`, or a number for a uniform one.
        chunk: how many baselines are taken at once; memory grows with it, not with their number.
        progress: called with the number of baselines done, up to a hundred times.

    Returns:
        An attribution of the shape that the method gives. Cost: the method's, for every baseline.

    Raises:
        ValueError: if the references do not fit the images.

    Example:
        >>> import jax.numpy as jnp, jaxattr
        >>> f = lambda x: 3 * x.reshape(1, 2)
        >>> references = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1) * jnp.ones((2, 1, 2, 1))
        >>> a = expected(jaxattr.deeplift, f, references=references)
        >>> a(jnp.full((1, 1, 2, 1), 2.0), jnp.array([1])).ravel()
        Array([0. , 4.5], dtype=float32)
    """
    check_positive("chunk", chunk)

    def explain(x: Array, target: Array, key: Key | None) -> Array:
        starts = images_like(references, x)
        one = lambda start, x, target: method(f, baseline=start)(x, target, key=key)
        given = (starts, jnp.ones(len(starts)), x, target)
        return moments(one, *given, chunk=chunk, progress=progress).mean

    return attribution(f, explain)


def images_like(references: ArrayLike, x: Array) -> Array:
    """Return references `(N, H, W, C)` of images, one if a number is given."""
    given = jnp.asarray(references)
    count = given.shape[0] if given.ndim == 4 else 1
    return broadcast("references", references, x, (count, *x.shape[1:]))
