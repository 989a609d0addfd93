"""Conservation: where the relevance of LRP goes on its way from the logits to the image."""

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, one_by_one, same_options
from jaxattr.methods.lrp import composite_of, lrp_details
from jaxattr.rules.composites import Composite
from jaxattr.rules.propagation import logit, named, read, tapped, zeros
from jaxattr.tracing.sites import Scope
from jaxattr.tracing.transform import run_scope
from jaxattr.types import Array, Explanation, Fun


class Conservation(NamedTuple):
    """Where relevance goes, summed over each image.

    Attributes:
        start: the relevance of the logits, `(B,)`.
        end: that of the image, `(B,)`.
        arrived: what arrived at each operation, `(B,)` by name, from the logits to the image.
        lost: of that, what it did not hand to its inputs, `(B,)` by name; the sum over all
            operations is `start - end`.
    """

    start: Array
    end: Array
    arrived: OrderedDict[str, Array]
    lost: OrderedDict[str, Array]


@same_options(lrp_details)
def conservation(f: Fun, **options: Any) -> Explanation[Conservation]:
    """Tell how much relevance arrives at every layer and how much of it is lost there.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        **options: as for `lrp`.

    Returns:
        `(x, target) -> Conservation(start, end, arrived, lost)`, sums over each image. Law: the
        sum of all that is lost is `start - end`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: x.mean((1, 2)) @ jnp.array([[2.0], [1.0]]) + 1
        >>> found = conservation(f)(jnp.ones((1, 2, 2, 2)), jnp.array([0]))
        >>> {k: round(v.item(), 2) + 0.0 for k, v in found.lost.items()}
        {'dot_general': 1.0, 'div': 0.0, 'reduce_sum': 0.0}
    """
    made = composite_of(**options)
    return attribution(f, lambda x, target, key: _account(f, made, x, target))


def _account(f: Fun, composite: Composite, x: Array, target: Array) -> Conservation:
    def one(x: Array, target: Array) -> Conservation:
        (scope, _), rules = read(f, composite, x)
        logits, pull = jax.vjp(
            lambda x, *taps: run_scope(scope, tapped(rules, *taps), x)[0],
            *(x, _ins(scope), zeros(scope)),
        )
        r = logit(logits, target)
        a, handed, arrived = pull(r)
        arrived = {k: v.sum() for k, v in arrived.items()}
        lost = {k: v - sum(h.sum() for h in handed[k]) for k, v in arrived.items()}
        return Conservation(r.sum(), a.sum(), named(scope, arrived), named(scope, lost))

    return one_by_one(f, lambda x, target: one(x[None], target[None]), x, target)


def _ins(scope: Scope) -> dict[int, list[Array]]:
    """Return zeros like the operands of every operation that depend on x."""
    found = {}
    for place in scope.places:
        if place.site is not None:
            operands = place.operation.operands[: place.operation.active]
            avals = [scope.program.avals[a] for a in operands]
            found[place.site.position] = [jnp.zeros(aval.shape, aval.dtype) for aval in avals]
        for inner in place.scopes:
            found |= _ins(inner)
    return found
