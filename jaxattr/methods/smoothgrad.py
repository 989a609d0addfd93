"""Averages of any attribution over noisy copies of the image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxattr.contract import check_images, check_positive, need_key
from jaxattr.loops.sampling import Moments, moments
from jaxattr.types import Array, Attribution, Key


def smooth(
    attribute: Attribution, *, samples: int = 50, noise: float = 0.15, chunk: int = 1
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

    Returns:
        An attribution of the shape that `attribute` gives. It needs a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> f = lambda x: (x**2).reshape(1, 1)
        >>> a = smooth(jaxattr.saliency(f), samples=10)
        >>> a(jnp.full((1, 1, 1, 1), 2.0), jnp.array([0]), key=jax.random.key(0)).item()
        4.0

    Reference:
        Smilkov, Thorat, Kim, Viegas and Wattenberg, SmoothGrad, 2017, section 3.
    """
    return _over_noise(
        attribute, lambda m: m.mean, "smooth", samples=samples, noise=noise, chunk=chunk
    )


def smooth_squared(
    attribute: Attribution, *, samples: int = 50, noise: float = 0.15, chunk: int = 1
) -> Attribution:
    """Average the square of an attribution over noisy copies of the image (SmoothGrad-Squared).

        a = 1/n sum_i A(x + e_i)^2

    Law: equals `smooth` squared plus `variance`, with the same key.

    Args:
        attribute: any attribution.
        samples: n.
        noise: standard deviation as a fraction of the image's range.
        chunk: how many samples are evaluated at once.

    Returns:
        A non-negative attribution of the shape that `attribute` gives. It needs a key.

    Reference:
        Hooker, Erhan, Kindermans and Kim, A benchmark for interpretability methods, NeurIPS 2019.
    """
    return _over_noise(
        attribute,
        lambda m: m.mean**2 + m.variance,
        "smooth_squared",
        samples=samples,
        noise=noise,
        chunk=chunk,
    )


def variance(
    attribute: Attribution, *, samples: int = 50, noise: float = 0.15, chunk: int = 1
) -> Attribution:
    """Return the variance of an attribution over noisy copies of the image (VarGrad).

        a = 1/n sum_i (A(x + e_i) - mean)^2

    Law: zero for an attribution that does not depend on `x`.

    Args:
        attribute: any attribution.
        samples: n.
        noise: standard deviation as a fraction of the image's range.
        chunk: how many samples are evaluated at once.

    Returns:
        A non-negative attribution of the shape that `attribute` gives. It needs a key.

    Reference:
        Adebayo, Gilmer, Goodfellow and Kim, Local explanation methods for deep neural networks
        lack sensitivity to parameter values, ICLR workshop 2018.
    """
    return _over_noise(
        attribute, lambda m: m.variance, "variance", samples=samples, noise=noise, chunk=chunk
    )


def _over_noise(
    attribute: Attribution,
    statistic: Callable[[Moments], Array],
    method: str,
    *,
    samples: int,
    noise: float,
    chunk: int,
) -> Attribution:
    check_positive("samples", samples)
    check_positive("chunk", chunk)

    def attribute_noisy(x: Array, target: Array, *, key: Key | None = None) -> Array:
        key, x = need_key(key, method), jnp.asarray(x)
        check_images(x)
        axes = tuple(range(1, x.ndim))
        sigma = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))

        def evaluate(key: Key) -> Array:
            ours, theirs = jax.random.split(key)
            draw = jax.random.normal(ours, x.shape[1:], x.dtype)
            return attribute(x + sigma * draw, target, key=theirs)

        keys = jax.random.split(key, samples)
        return statistic(moments(evaluate, keys, jnp.ones(samples), chunk=chunk))

    return attribute_noisy
