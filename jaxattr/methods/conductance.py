"""Conductance and internal influence: a layer along a path of images."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxattr.contract import attribution, check_positive, class_gradient, resolve_baseline
from jaxattr.loops.moments import moments
from jaxattr.loops.progress import Progress
from jaxattr.loops.quadrature import Nodes, Quadrature, gauss_legendre, midpoint
from jaxattr.portable import portable
from jaxattr.tracing.taps import Split, split
from jaxattr.types import Array, Baseline, Explanation, Fun, Layer

Weigh: TypeAlias = Callable[[Split, Callable[[Array], Array], Array], Array]
"""A layer, images along the path and a place on it to what multiplies the gradient there."""


@portable
def conductance(
    f: Fun,
    *,
    layer: Layer,
    steps: int = 50,
    baseline: Baseline = 0.0,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Explanation[Array]:
    """Attribute to a layer how its change along the line from a baseline changes the logit.

        a = integral over s in [0, 1] of df[t]/dh dh/ds at x' + s (x - x')

    where `h` is the layer's value, by gradients in the middles of `steps` intervals and differences
    of `h` over them, which miss no kink of a ReLU as derivatives at points do. Law (completeness):
    for a layer that nothing bypasses, `a` sums to `f(x)[t] - f(x')[t]` up to an error that falls as
    `steps**-2` where `f` is smooth. In `inside` the path is a line of the layer's values; here it
    is their curve for a line of images.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `jaxattr.inside`.
        steps: intervals of the path.
        baseline: `x'`, a number, an array that broadcasts to `x`, or a function of images.
        chunk: how many intervals are evaluated at once; memory grows with it, not with `steps`.
        progress: called with the number of intervals done, up to a hundred times.

    Returns:
        `(x, target)` to a map of the layer's shape, in logits. Cost: `3 steps` forward passes, of
        which two go to the layer alone, and `steps` backward passes down to it.

    Raises:
        ValueError: if the layer is unknown; the known ones are listed.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("square")
        ... def square(x):
        ...     return x.sum((1, 2)) ** 2
        >>> f = lambda x: square(x) @ jnp.array([[1.0], [2.0]])
        >>> conductance(f, layer="square")(jnp.ones((1, 1, 3, 2)), jnp.array([0])).round(3).tolist()
        [[9.0, 18.0]]

    Reference:
        Dhamdhere, Sundararajan and Yan, How important is a neuron, ICLR 2019.

    Differs from Captum, which takes the gradient at the beginning of each interval.
    """
    check_positive("steps", steps)

    def change(halves: Split, at: Callable[[Array], Array], s: Array) -> Array:
        after, before = (halves.before(at(s + d / (2 * steps))) for d in (1, -1))
        return steps * (after - before)

    return _along(f, layer, midpoint(steps), baseline, change, chunk, progress)


@portable
def internal_influence(
    f: Fun,
    *,
    layer: Layer,
    steps: int = 50,
    baseline: Baseline = 0.0,
    quadrature: Quadrature = gauss_legendre,
    chunk: int = 1,
    progress: Progress | None = None,
) -> Explanation[Array]:
    """Attribute to a layer its mean gradient along the line of images from a baseline.

        a = integral over s in [0, 1] of df[t]/dh at x' + s (x - x')

    Law: where the network is affine behind the layer it is the layer's gradient.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `jaxattr.inside`.
        steps: evaluations of the gradient.
        baseline: `x'`, a number, an array that broadcasts to `x`, or a function of images.
        quadrature: as for `jaxattr.integrated_gradients`.
        chunk: how many points are evaluated at once; memory grows with it, not with `steps`.
        progress: called with the number of points done, up to a hundred times.

    Returns:
        `(x, target)` to a map of the layer's shape, in logits per unit of it. Cost: `steps` forward
        passes, and as many backward passes down to the layer.

    Raises:
        ValueError: if the layer is unknown; the known ones are listed.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("sum")
        ... def total(x):
        ...     return x.sum((1, 2))
        >>> f = lambda x: total(x) ** 2
        >>> a = internal_influence(f, layer="sum")(jnp.full((1, 1, 1, 1), 3.0), jnp.array([0]))
        >>> round(a.item(), 4)  # the mean of 2 s from 0 to 3
        3.0

    Reference:
        Leino, Sen, Datta, Fredrikson and Li, Influence-directed explanations for deep convolutional
        networks, ITC 2018.
    """
    check_positive("steps", steps)
    one = lambda halves, at, s: jnp.ones((), at(s).dtype)
    return _along(f, layer, quadrature(steps), baseline, one, chunk, progress)


def _along(
    f: Fun,
    layer: Layer,
    nodes: Nodes,
    baseline: Baseline,
    weigh: Weigh,
    chunk: int,
    progress: Progress | None,
) -> Explanation[Array]:
    check_positive("chunk", chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
        halves = split(f, x, layer=layer)
        start = resolve_baseline(baseline, x)
        at = lambda s: start + s * (x - start)

        def weighted(s: Array) -> Array:
            rest = lambda v: halves.after(v, at(s))
            return class_gradient(rest, halves.before(at(s)), target) * weigh(halves, at, s)

        points, weights = (jnp.asarray(a, x.dtype) for a in nodes)
        found = moments(weighted, points, weights, chunk=chunk, progress=progress)
        return found.mean * weights.sum().astype(found.mean.dtype)

    return attribution(f, explain)
