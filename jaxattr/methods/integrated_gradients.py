"""Integrated gradients along a straight line from a baseline."""

import jax.numpy as jnp

from jaxattr.contract import attribution, check_positive, class_gradient, resolve_baseline
from jaxattr.facts import method
from jaxattr.loops.moments import moments
from jaxattr.loops.progress import Progress
from jaxattr.loops.quadrature import Quadrature, gauss_legendre
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Baseline, Fun


@method(cost="steps x (1 forward, 1 backward)", family="paths")
def integrated_gradients(
    f: Fun,
    *,
    steps: int = 50,
    baseline: Baseline = 0.0,
    quadrature: Quadrature = gauss_legendre,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute by the gradient's integral along the straight line from a baseline.

        a = (x - x') * integral over s in [0, 1] of d f(x' + s (x - x'))[t] / dx      (eq. 1)

    Law (completeness): `a` sums to `f(x)[t] - f(x')[t]` up to the error of the quadrature, which
    falls at the order of the quadrature where `f` is smooth.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        steps: evaluations of the gradient; the paper uses 20 to 300.
        baseline: `x'`, a number, an array that broadcasts to `x`, or a function of images.
        quadrature: `gauss_legendre`, `midpoint`, `trapezoid`, `left_riemann`, `right_riemann` of
            `jaxattr.loops.quadrature`, or any function from `steps` to `Nodes`.
        chunk: how many points are evaluated at once; memory grows with it, not with `steps`.
        progress: called with the number of points done, up to a hundred times.

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
    g = lowered(f)

    def explain(x: Array, target: Array, key: object) -> Array:
        start = resolve_baseline(baseline, x)
        points = jnp.asarray(nodes.points, x.dtype)
        weights = jnp.asarray(nodes.weights, x.dtype)

        def gradient(s: Array, x: Array, start: Array, target: Array) -> Array:
            return class_gradient(g, start + s * (x - start), target)

        batch = (x, start, target)
        found = moments(gradient, points, weights, *batch, chunk=chunk, progress=progress)
        return (x - start) * found.mean * weights.sum()

    return attribution(f, explain)
