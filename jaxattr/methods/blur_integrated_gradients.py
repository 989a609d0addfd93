"""Blur Integrated Gradients: the path from a blurred image to the image itself."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxattr.contract import attribution, check_positive, class_gradient
from jaxattr.facts import method
from jaxattr.image.filters import gaussian, rounded_reach, toeplitz
from jaxattr.image.linear import multiply
from jaxattr.loops.moments import moments
from jaxattr.loops.progress import Progress
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Fun


class Blur(NamedTuple):
    """A point of the path: Gaussians as rows over the offsets `-(n - 1), ..., n - 1`.

    Attributes:
        here: of the point's sigma.
        ahead: of a slightly larger one.
        rate: their difference over that of the sigmas.
    """

    here: Array
    ahead: Array
    rate: Array


@method(cost="steps x (1 forward, 1 backward)", family="paths")
def blur_integrated_gradients(
    f: Fun,
    *,
    max_sigma: float = 50.0,
    steps: int = 100,
    sqrt: bool = False,
    grad_step: float = 0.01,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute by the gradient's integral along the path that blurs the image more and more.

        a = - integral over sigma in [0, max_sigma] of grad f(x_sigma)[t] * dx_sigma/dsigma  (eq. 6)

    `x_sigma` is the image blurred by a Gaussian of `sigma` pixels, with black around it. No
    baseline is chosen: what is left after `max_sigma` is nearly none. Laws: `a` sums to
    `f(x)[t] - f(x_max_sigma)[t]` up to an error that falls as `1 / steps`; equals PAIR's arrays.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        max_sigma: of the last image, in pixels.
        steps: evaluations of the gradient, each at the sharper end of its step.
        sqrt: whether the squares of sigma are spaced evenly, up to `max_sigma` itself, instead of
            the sigmas.
        grad_step: the difference of sigmas by which the derivative along the path is taken.
        chunk: how many points are evaluated at once; memory grows with it, not with `steps`.
        progress: called with the number of points done, up to a hundred times.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: `steps` forward and backward passes.

    Raises:
        ValueError: if an option is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x[:, 1, 1]
        >>> x = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1)
        >>> round(blur_integrated_gradients(f, steps=400)(x, jnp.array([0])).sum().item(), 1)
        1.0

    Reference:
        Xu, Venugopalan and Sundararajan, Attribution in scale and space, CVPR 2020.
    """
    for name, value in (("max_sigma", max_sigma), ("grad_step", grad_step)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} is {value}; expected a positive number of pixels")
    check_positive("steps", steps)
    check_positive("chunk", chunk)
    sigmas = np.arange(steps + 1) * max_sigma / steps
    sigmas = np.sqrt(sigmas) if sqrt else sigmas
    g = lowered(f)

    def explain(x: Array, target: Array, key: object) -> Array:
        reach = max(x.shape[1:3]) - 1
        here = np.stack([_weights(sigma, reach) for sigma in sigmas[:-1]])
        ahead = np.stack([_weights(sigma + grad_step, reach) for sigma in sigmas[:-1]])
        rows = (here, ahead, (ahead - here) / grad_step)
        points = Blur(*(jnp.asarray(a, x.dtype) for a in rows))
        widths = jnp.asarray(np.diff(sigmas), x.dtype)

        def evidence(point: Blur, x: Array, target: Array) -> Array:
            blurred = _rows(point.here, x)
            moving = _columns(point.ahead, _rows(point.rate, x)) + _columns(point.rate, blurred)
            return moving * class_gradient(g, _columns(point.here, blurred), target)

        found = moments(evidence, points, widths, x, target, chunk=chunk, progress=progress)
        return -found.mean * widths.sum()

    return attribution(f, explain)


def _weights(sigma: float, reach: int) -> np.ndarray:
    """Return the part of a Gaussian between the offsets `-reach` and `reach`."""
    whole = rounded_reach(sigma)
    beyond = max(reach - whole, 0)
    return np.pad(gaussian(sigma, whole), beyond)[whole + beyond - reach :][: 2 * reach + 1]


def _rows(weights: Array, x: Array) -> Array:
    return multiply(x, toeplitz(weights, x.shape[1]), 1)


def _columns(weights: Array, x: Array) -> Array:
    return multiply(x, toeplitz(weights, x.shape[2]), 2)
