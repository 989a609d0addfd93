"""Relevance from the logits to the image, and at every layer on the way."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.contract import one_hot
from jaxattr.rules import composites
from jaxattr.rules.composites import Composite
from jaxattr.rules.relevance import is_resizing
from jaxattr.tracing.local import Local, Rule, plain, refuse
from jaxattr.tracing.operations import Operation
from jaxattr.tracing.primitives import Kind
from jaxattr.tracing.sites import Scope, every
from jaxattr.tracing.transform import run_scope, trace
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


def logit(logits: Array, target: Array) -> Array:
    """Start with the logit of the target as its own relevance."""
    return logits * one_hot(target, logits)


def by_composite(composite: Composite) -> Callable[[Scope], Mapping[str, Rule]]:
    """Return the rules of a composite, as `propagate` takes them."""
    return lambda scope: composites.rules(composite, *ends(scope))


def propagate(
    f: Fun,
    rules: Callable[[Scope], Mapping[str, Rule]],
    x: Any,
    target: Array,
    start: Start = logit,
) -> Any:
    """Return the relevance of the image, or of whatever `f` is a function of.

    Args:
        f: images to logits.
        rules: from what is found in `f` to rules whose cotangents are relevance.
        x: images `(B, H, W, C)`, or any tree of arrays for other functions.
        target: classes `(B,)`.
        start: the relevance of the logits.
    """
    scope = trace(f, x).scope
    logits, pull = jax.vjp(lambda x: run_scope(scope, rules(scope), *jax.tree.leaves(x))[0], x)
    (a,) = pull(start(logits, target))
    return a


def propagate_layers(
    f: Fun,
    rules: Callable[[Scope], Mapping[str, Rule]],
    x: Array,
    target: Array,
    start: Start = logit,
) -> Relevance:
    """Return the relevance of the image and of the output of every operation, as `propagate`."""
    scope = trace(f, x).scope
    a, found = cotangents(scope, rules(scope), x, lambda logits: start(logits, target))
    return Relevance(a, named(scope, found))


def cotangents(
    scope: Scope, rules: Mapping[str, Rule], x: Array, start: Callable[[Array], Array]
) -> tuple[Array, dict[int, Array]]:
    """Return the cotangents of the image and of the output of every operation, by position."""
    logits, pull = jax.vjp(
        lambda x, outs: run_scope(scope, _tapped(rules, {}, outs), x)[0], x, _outs(scope)
    )
    return pull(start(logits))


def account(
    f: Fun,
    rules: Callable[[Scope], Mapping[str, Rule]],
    x: Array,
    target: Array,
    start: Start = logit,
) -> Conservation:
    """Return the sums of relevance that arrive at every operation and leave it, as `propagate`."""

    def one(x: Array, target: Array) -> Conservation:
        scope = trace(f, x).scope
        logits, pull = jax.vjp(
            lambda x, *taps: run_scope(scope, _tapped(rules(scope), *taps), x)[0],
            *(x, _ins(scope), _outs(scope)),
        )
        r = start(logits, target)
        a, handed, arrived = pull(r)
        arrived = {k: v.sum() for k, v in arrived.items()}
        lost = {k: v - sum(h.sum() for h in handed[k]) for k, v in arrived.items()}
        return Conservation(r.sum(), a.sum(), named(scope, arrived), named(scope, lost))

    return jax.vmap(one)(x[:, None], target[:, None])


def ends(scope: Scope) -> tuple[frozenset[int], frozenset[int]]:
    """Return the positions of the layers that see the image, and of those no other layer sees.

    What stands between is no layer: scales, activations, pools. Layers inside loops are neither.
    """
    first = _reached(scope, reverse=False)
    last = _reached(scope, reverse=True)
    return first, last


def _reached(scope: Scope, *, reverse: bool) -> frozenset[int]:
    """Return the layers that a walk from one end of a program meets before any other."""
    past: set[int] = set()
    found = set()
    for place in reversed(scope.places) if reverse else scope.places:
        o = place.operation
        ways = o.operands[: o.active], o.outputs
        entered, left = reversed(ways) if reverse else ways
        layer = is_layer(o) or any(is_layer(p.operation) for s in place.scopes for p in every(s))
        if layer and place.site is not None and past.isdisjoint(entered):
            found.add(place.site.position)
        if layer or not past.isdisjoint(entered):
            past.update(left)
    return frozenset(found)


def is_layer(o: Operation) -> bool:
    """Whether an operation is a layer with weights of its own."""
    return o.kind is Kind.AFFINE and o.layered and not is_resizing(o.equations)


def _outs(scope: Scope) -> dict[int, Array]:
    """Return zeros like the output of every operation."""
    return {s.position: jnp.zeros(s.shape, s.dtype) for s in scope.sites}


def _ins(scope: Scope) -> dict[int, list[Array]]:
    """Return zeros like the operands of every operation that depend on x."""
    found = {}
    for place in scope.places:
        if place.site is not None:
            active = place.operation.operands[: place.operation.active]
            zeros = [jnp.zeros_like(scope.program.avals[a]) for a in active]
            found[place.site.position] = zeros
        for inner in place.scopes:
            found |= _ins(inner)
    return found


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


def _tapped(
    rules: Mapping[str, Rule],
    ins: Mapping[int, Sequence[Array]],
    outs: Mapping[int, Array],
) -> dict[str, Rule]:
    """Add zeros to what enters and leaves each operation: their cotangents are the relevance."""

    def tap(rule: Rule) -> Rule:
        def tapped(local: Local) -> Callable[..., Array]:
            run, position = rule(local), local.site.position

            def value(*operands: Any) -> Array:
                added = ins.get(position, ())
                moved = [x + t for x, t in zip(operands, added, strict=False)]
                return run(*moved, *operands[len(moved) :]) + outs[position]

            return value

        return tapped

    defaults = dict.fromkeys(Kind, plain) | {Kind.UNKNOWN: refuse}
    return {kind: tap(rules.get(kind, default)) for kind, default in defaults.items()}
