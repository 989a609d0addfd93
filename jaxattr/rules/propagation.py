"""Relevance from the logits to the image, and at every layer on the way."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.contract import one_hot, vary_like, where_finite
from jaxattr.programs.control_flow import written_out
from jaxattr.programs.primitives import Kind
from jaxattr.rules.assignment import assign, ends
from jaxattr.rules.composites import Composite
from jaxattr.tracing.local import Local, Rule, plain, refuse
from jaxattr.tracing.sites import Scope, every
from jaxattr.tracing.transform import Traced, run_scope, trace
from jaxattr.types import Array, Fun

Start: TypeAlias = Callable[[Array, Array], Array]
"""`(logits, target) -> relevance of the logits`."""


class Relevance(NamedTuple):
    """Relevance at the image and at every layer.

    Attributes:
        attribution: of the image, of the shape of `x`.
        layers: of the output of every operation, by name, from the logits to the image.
    """

    attribution: Array
    layers: OrderedDict[str, Array]


def logit(logits: Array, target: Array) -> Array:
    """Start with the logit of the target as its own relevance."""
    return logits * one_hot(target, logits)


def read(f: Fun | Traced, composite: Composite, x: Any) -> tuple[Traced, dict[str, Rule]]:
    """Read a function, what its composite holds held, and return it with the composite's rules.

    Loops are written out if its first or last layer is in one.
    """
    traced = trace(f, x, hold=composite.hold)
    if not all(ends(traced.scope)):
        traced = trace(f, x, hold=composite.hold, write_out=written_out)
    held = (p.operation for p in every(traced.scope) if p.operation.held)
    if composite.attending is not None and any(o.layered for o in held):
        return read(f, composite.attending, x)
    return traced, assign(composite, traced.scope)


def propagate(
    f: Fun | Traced,
    composite: Composite,
    x: Any,
    target: Array,
    start: Start = logit,
) -> Any:
    """Return the relevance of the image, or of whatever `f` is a function of.

    Args:
        f: images to logits, or such a function that is read already.
        composite: which rule stands where; its cotangents are relevance.
        x: images `(B, H, W, C)`, or any tree of arrays for other functions.
        target: classes `(B,)`.
        start: the relevance of the logits.
    """
    traced, rules = read(f, composite, x)
    logits, pull = jax.vjp(lambda x: traced.run(rules, x), x)
    (a,) = pull(start(logits, target))
    return where_finite(a, logits)


def propagate_layers(
    f: Fun | Traced,
    composite: Composite,
    x: Any,
    target: Array,
    start: Start = logit,
) -> Relevance:
    """Return the relevance of the image and of the output of every operation, as `propagate`."""
    (scope, _), rules = read(f, composite, x)
    a, found = cotangents(scope, rules, x, lambda logits: start(logits, target))
    return Relevance(a, named(scope, found))


def cotangents(
    scope: Scope, rules: Mapping[str, Rule], x: Any, start: Callable[[Array], Array]
) -> tuple[Any, dict[int, Array]]:
    """Return the cotangents of the image and of the output of every operation, by position."""
    logits, pull = jax.vjp(
        lambda x, outs: run_scope(scope, tapped(rules, {}, outs), *jax.tree.leaves(x))[0],
        *(x, vary_like(zeros(scope), jax.tree.leaves(x)[0])),
    )
    return where_finite(pull(start(logits)), logits)


def zeros(scope: Scope) -> dict[int, Array]:
    """Return zeros like the output of every operation."""
    return {s.position: jnp.zeros(s.shape, s.dtype) for s in scope.sites}


def named(scope: Scope, found: Mapping[int, Array]) -> OrderedDict[str, Array]:
    """Name what was found by path and operation, numbered where that is not unique, last first."""
    sites = scope.sites
    names = [f"{s.name}/{s.op}" if s.name else s.op for s in sites]
    repeated, seen = Counter(names), Counter[str]()
    named = []
    for name, s in zip(names, sites, strict=True):
        seen[name] += 1
        if s.position in found:
            unique = f"{name}:{seen[name]}" if repeated[name] > 1 else name
            named.append((unique, found[s.position]))
    return OrderedDict(reversed(named))


def tapped(
    rules: Mapping[str, Rule],
    ins: Mapping[int, Sequence[Array]],
    outs: Mapping[int, Array],
) -> dict[str, Rule]:
    """Add zeros to what enters and leaves each operation: their cotangents are the relevance."""

    def tap(rule: Rule) -> Rule:
        def wrapped(local: Local) -> Callable[..., Array]:
            run, position = rule(local), local.site.position

            def value(*operands: Any) -> Array:
                added = ins.get(position, ())
                moved = [x + t for x, t in zip(operands, added, strict=False)]
                return run(*moved, *operands[len(moved) :]) + outs[position]

            return value

        return wrapped

    defaults = dict.fromkeys(Kind, plain) | {Kind.UNKNOWN: refuse}
    return {kind: tap(rules.get(kind, default)) for kind, default in defaults.items()}
