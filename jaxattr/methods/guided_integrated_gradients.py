"""Guided Integrated Gradients: a path that turns where the gradient is small."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.contract import attribution, check_positive, class_gradient, resolve_baseline
from jaxattr.facts import method
from jaxattr.image.order import nth_smallest
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress, report
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Baseline, Fun


@method(cost="steps x (1 forward, 1 backward)", family="paths")
def guided_integrated_gradients(
    f: Fun,
    *,
    steps: int = 200,
    baseline: Baseline = 0.0,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute by the gradient's integral along a path that puts off what the model reacts to.

    Every value goes from the baseline's to the image's, `x_i = x'_i + alpha_i (x_i - x'_i)`. A step
    takes the whole 1/steps nearer, in the L1 norm, by moving those of smallest gradient first, a
    `fraction` of all at a time, as far as they may go: `alpha_i` stays within `max_dist` of the
    straight line's. With the gradient at the start of each step

        a = sum over steps of grad f(x_step)[t] * (x_step+1 - x_step)      (eqs. 5, 6)

    Laws: with `max_dist=0` it is integrated gradients by left ends; `a` sums to
    `f(x)[t] - f(x')[t]` up to an error that falls with `steps`; equals PAIR's arrays.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        steps: evaluations of the gradient, one after the other: where a path goes next depends on
            them, so there is nothing to evaluate in chunks.
        baseline: `x'`, a number, an array that broadcasts to `x`, or a function of images.
        fraction: of the values, how many move at a time, in (0, 1].
        max_dist: how far a value may be from the straight line, in [0, 1]; 1 is anywhere.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: `steps` forward and backward passes.
        Which values move hangs on comparing gradients, so that float32 and float64 take different
        paths.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: jnp.prod(x, (1, 2))
        >>> x, target = jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1), jnp.array([0])
        >>> a = guided_integrated_gradients(f, steps=400, max_dist=1.0)(x, target)
        >>> round(a.sum().item(), 1)
        2.0

    Reference:
        Kapishnikov, Venugopalan, Avci, Wedin, Terry and Bolukbasi, Guided integrated gradients,
        CVPR 2021.
    """
    check_positive("steps", steps)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected more than 0 and at most 1")
    if not 0 <= max_dist <= 1:
        raise ValueError(f"max_dist is {max_dist}; expected 0 to 1")
    g = lowered(f)

    def explain(x: Array, target: Array, key: object) -> Array:
        start = resolve_baseline(baseline, x)
        change = at_least_float32(x) - at_least_float32(start)
        share = jnp.abs(change)
        goals = share.sum((1, 2, 3))
        rank = int(np.floor((share.size // max(len(share), 1) - 1) * fraction))

        def step(state: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
            at, found = state
            slope = at_least_float32(
                class_gradient(g, (start + at * change).astype(x.dtype), target)
            )
            done = ((i + 1) / steps).astype(at.dtype)
            low, high = jnp.maximum(done - max_dist, 0), jnp.minimum(done + max_dist, 1)
            near = jnp.maximum(at, low)
            gap = (share * (1 - near)).sum((1, 2, 3)) - goals * (1 - done)
            new = jax.vmap(lambda *each: _move(high, rank, *each))(near, jnp.abs(slope), share, gap)
            report(progress, i, steps)
            return (new, found + (new - at) * change * slope), None

        zero = jnp.zeros_like(change)
        (_, found), _ = lax.scan(step, (zero, zero), jnp.arange(steps))
        return found.astype(x.dtype)

    return attribution(f, explain)


def _move(high: Array, rank: int, at: Array, steepness: Array, share: Array, gap: Array) -> Array:
    """Move the flattest values towards `high` until they have closed the gap.

    Args:
        high: how far they may go.
        rank: of the last of those that move at a time.
        at: where the values are on their way, in [0, 1].
        steepness: the magnitude of their gradients.
        share: how much each adds to the distance.
        gap: by how much the distance is to fall.
    """
    room = share * (high - at)
    order, rooms, start = lax.stop_gradient((steepness, room, gap))

    def between(low: Array | float, high: Array | float) -> Array:
        return (rooms > 0) & (low < order) & (order <= high)

    def turn(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, passed, left = state
        edge = nth_smallest(order.ravel(), rank, where=between(passed, jnp.inf).ravel())
        return passed, edge, left - jnp.where(between(passed, edge), rooms, 0).sum()

    def open_(state: tuple[Array, Array, Array]) -> Array:
        _, edge, left = state
        return (left > 0) & (edge < jnp.inf)

    nothing = jnp.full_like(start, -1)
    passed, edge, _ = lax.while_loop(open_, turn, (nothing, nothing, start))
    whole, partly = between(-1, passed), between(passed, edge)
    left = gap - jnp.where(whole, room, 0).sum()
    wanted = jnp.where(partly, room, 0).sum()
    part = jnp.minimum(left / jnp.where(wanted == 0, 1, wanted), 1)
    return jnp.where(whole, high, jnp.where(partly, at + part * (high - at), at))
