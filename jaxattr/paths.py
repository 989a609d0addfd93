"""Integrals of the gradient along a path."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxattr.sampling import moments
from jaxattr.targets import attribution, broadcast, check_positive, class_gradient
from jaxattr.tracing.rewrite import with_rules
from jaxattr.types import Array, Attribution, Fun


class Nodes(NamedTuple):
    """Where on [0, 1] an integrand is evaluated, and with what weights; these sum to one."""

    points: np.ndarray
    weights: np.ndarray


Quadrature: TypeAlias = Callable[[int], Nodes]
"""From a number of evaluations to nodes and weights."""


def gauss_legendre(steps: int) -> Nodes:
    """Gauss-Legendre quadrature: exact for polynomials of degree `2 * steps - 1`.

    >>> points, weights = gauss_legendre(3)
    >>> round(float((weights * points**5).sum()), 12)
    0.166666666667
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    return Nodes((points + 1) / 2, weights / 2)


def midpoint(steps: int) -> Nodes:
    """Midpoints of `steps` equal intervals; the error falls as `steps**-2`."""
    return Nodes((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps))


def left_riemann(steps: int) -> Nodes:
    """Left ends of `steps` equal intervals; the error falls as `1 / steps`."""
    return Nodes(np.arange(steps) / steps, np.full(steps, 1 / steps))


def right_riemann(steps: int) -> Nodes:
    """Right ends of `steps` equal intervals, as in the paper; the error falls as `1 / steps`."""
    return Nodes(np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps))


def trapezoid(steps: int) -> Nodes:
    """Both ends and what lies between, `steps` points in all; the error falls as `steps**-2`."""
    if steps < 2:
        raise ValueError(f"steps is {steps}; the trapezoid rule needs both ends, at least 2")
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return Nodes(np.linspace(0, 1, steps), weights)


def integrated_gradients(
    f: Fun,
    *,
    steps: int = 50,
    baseline: Array | float = 0.0,
    quadrature: Quadrature = gauss_legendre,
    chunk: int = 1,
) -> Attribution:
    """Attribute by the gradient's integral along the straight line from a baseline.

        a = (x - x') * integral over s in [0, 1] of d f(x' + s (x - x'))[t] / dx      (eq. 1)

    Law (completeness): `a` sums to `f(x)[t] - f(x')[t]` up to the error of the quadrature, which
    falls at the order of the quadrature where `f` is smooth.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        steps: evaluations of the gradient; the paper uses 20 to 300.
        baseline: `x'`, a number or anything that broadcasts to the shape of `x`.
        quadrature: `gauss_legendre`, `midpoint`, `trapezoid`, `left_riemann`, `right_riemann` of
            `jaxattr.paths`, or any function from `steps` to `Nodes`.
        chunk: how many points are evaluated at once; memory grows with it, not with `steps`.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: `steps` forward and backward passes.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: (x**3).reshape(1, 1)
        >>> a = integrated_gradients(f, steps=2)
        >>> round(a(jnp.full((1, 1, 1, 1), 2.0), jnp.array([0])).item(), 4)
        8.0

    Reference:
        Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017.

    Differs from Captum's trapezoid rule, whose weights sum to `(steps - 1) / steps`.
    """
    check_positive("steps", steps)
    check_positive("chunk", chunk)
    nodes = quadrature(steps)
    g = with_rules(f, {})

    def explain(x: Array, target: Array, key: object) -> Array:
        start = broadcast("baseline", baseline, x)
        points = jnp.asarray(nodes.points, x.dtype)
        weights = jnp.asarray(nodes.weights, x.dtype)

        def gradient(s: Array) -> Array:
            return class_gradient(g, start + s * (x - start), target)

        return (x - start) * moments(gradient, points, weights, chunk=chunk).mean * weights.sum()

    return attribution(f, explain)
