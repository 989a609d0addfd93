"""Completeness: whether a map adds up to what it explains."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxattr import scores
from jaxattr.contract import check_batch, resolve_baseline
from jaxattr.metrics.arguments import real
from jaxattr.metrics.results import Score, scored
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Baseline, Fun


def completeness_error(
    f: Fun, *, baseline: Baseline = 0.0, score: scores.Score = scores.logit
) -> Callable[[Array, Array, Array], Score]:
    """Measure how far the sum of a map is from the change of the score that it explains.

        score = | sum_p a_p - (s(x) - s(b(x))) |

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        baseline: what the map is measured from: a number, an array that broadcasts to `x`, or a
            function of images.
        score: `s`, of `jaxattr.scores`, what the map explains.

    Returns:
        A function of `x`, `target` and `attribution` to a score in units of `s`, 0 for
        integrated gradients with enough steps. Cost: two forward passes.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> completeness_error(f)(x, jnp.array([0]), x * 2).score.item()
        4.0

    Reference:
        Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017.
    """

    def measure(x: Array, target: Array, attribution: Array) -> Score:
        x, target = jnp.asarray(x), jnp.asarray(target)
        check_batch(f, x, target)
        g = lowered(f)
        a = real("the attribution", attribution)
        if a.ndim not in (3, 4) or len(a) != len(x):
            raise ValueError(f"the attribution has shape {a.shape}; the images have {x.shape}")
        here, there = (real("the logits", g(b)) for b in (x, resolve_baseline(baseline, x)))
        gained = score(here, target) - score(there, target)
        return scored(jnp.abs(a.sum(tuple(range(1, a.ndim))) - gained))

    return measure
