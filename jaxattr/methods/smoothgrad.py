"""SmoothGrad: any attribution, averaged over noisy copies of the image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxattr.contract import check_images, check_not_negative, check_positive, need_key
from jaxattr.facts import method
from jaxattr.loops.moments import Moments, moments
from jaxattr.loops.progress import Progress
from jaxattr.types import Array, Attribution, Key


@method(cost="samples x the method", family="noise", random=True, wraps=True)
def smoothgrad(
    attribute: Attribution,
    *,
    samples: int = 50,
    noise: float = 0.15,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Average an attribution over noisy copies of the image (SmoothGrad).

        a = 1/n sum_i A(x + e_i),    e_i ~ N(0, (noise * (max x - min x))^2)

    The range is that of each image. All images of a batch meet the same draws, so that each is
    explained as if alone. Laws: without noise, or for an attribution that does not depend on `x`,
    it is the attribution itself; batch = one by one.

    Args:
        attribute: any attribution.
        samples: n.
        noise: standard deviation as a fraction of the image's range (the paper finds 0.1 to 0.2
            best).
        chunk: how many samples are evaluated at once; memory grows with it, not with `samples`.
        progress: called with the number of samples done, up to a hundred times.

    Returns:
        An attribution of the shape that `attribute` gives. It needs a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> f = lambda x: (x**2).reshape(1, 1)
        >>> a = smoothgrad(jaxattr.saliency(f), samples=10)
        >>> a(jnp.full((1, 1, 1, 1), 2.0), jnp.array([0]), key=jax.random.key(0)).item()
        4.0

    Reference:
        Smilkov, Thorat, Kim, Viegas and Wattenberg, SmoothGrad, 2017, section 3.
    """
    return over_noise(
        attribute,
        lambda m: m.mean,
        "smoothgrad",
        samples=samples,
        noise=noise,
        chunk=chunk,
        progress=progress,
    )


def over_noise(
    attribute: Attribution,
    statistic: Callable[[Moments], Array],
    name: str,
    *,
    samples: int,
    noise: float,
    chunk: int,
    progress: Progress | None,
) -> Attribution:
    """Return a statistic of an attribution over noisy copies of the image.

    Args:
        attribute: any attribution.
        statistic: the mean and variance over the copies to a map.
        name: of the method, for errors.
        samples: how many copies.
        noise: standard deviation as a fraction of the image's range.
        chunk: how many copies are evaluated at once.
        progress: called with the number of copies done, up to a hundred times.
    """
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    check_not_negative("noise", noise)

    def attribute_noisy(x: Array, target: Array, *, key: Key | None = None) -> Array:
        key, x = need_key(key, name), jnp.asarray(x)
        check_images(x)
        axes = tuple(range(1, x.ndim))
        sigma = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))

        def evaluate(key: Key, x: Array, sigma: Array, target: Array) -> Array:
            ours, theirs = jax.random.split(key)
            draw = jax.random.normal(ours, x.shape[1:], x.dtype)
            return attribute(x + sigma * draw[None], target, key=theirs)

        keys = jax.random.split(key, samples)
        given = (keys, jnp.ones(samples), x, sigma, jnp.asarray(target))
        return statistic(moments(evaluate, *given, chunk=chunk, progress=progress))

    return attribute_noisy
