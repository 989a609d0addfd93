"""Which rule of a composite stands where in a program."""

import difflib
import math
from collections.abc import Collection, Iterable

from jaxattr.programs.primitives import Kind
from jaxattr.rules.composites import Composite
from jaxattr.rules.contributions import LayerRule, affine
from jaxattr.structures.folding import weight_axes
from jaxattr.structures.operations import Operation
from jaxattr.tracing.local import Local, Rule
from jaxattr.tracing.sites import Scope, every, is_under


def assign(composite: Composite, scope: Scope) -> dict[str, Rule]:
    """Return the rules of a composite, as `with_rules` takes them, for one program.

    Raises:
        ValueError: if the composite names a layer or an operation that the program does not have.
    """
    first, last = ends(scope)
    found = [p for p in every(scope) if p.site is not None and _is_layer(p.operation)]
    layers = [p.site for p in found if p.site is not None]
    batch = scope.program.avals[scope.program.inputs[0]].shape[:1]
    shared = {p.site.position for p in found if p.site and _uses(p.operation) > math.prod(batch)}
    scopes = ((p.site, p.operation) for p in every(scope))
    held = {site.position: o for site, o in scopes if site is not None and o.held}
    for name in composite.layers:
        if not any(is_under(site.name, name) for site in layers):
            raise ValueError(_unknown("layer", name, [site.name for site in layers]))
    for op in composite.ops:
        if all(site.op != op for site in scope.sites):
            raise ValueError(_unknown("operation", op, [site.op for site in scope.sites]))

    def of_layer(local: Local) -> LayerRule:
        position, path = local.site.position, local.site.name
        if position in held:
            return composite.attention if held[position].layered else composite.norm
        if all(site.position != position for site in layers):
            return composite.scale
        named = [rule for name, rule in composite.layers.items() if is_under(path, name)]
        if named:
            return named[-1]
        if composite.first is not None and position in first:
            return composite.first
        if composite.last is not None and position in last:
            return composite.last
        return composite.convolution if position in shared else composite.dense

    slots: dict[str, Rule] = {
        "affine": lambda local: affine(of_layer(local))(local),
        "activation": composite.activation,
        "linear": composite.mean,
        "sum": composite.sum,
        "product": composite.product,
        "max_pool": composite.max_pool,
        "softmax": composite.softmax,
        "statistic": composite.statistic,
        "unknown": composite.unknown,
    }

    def by_op(slot: Rule) -> Rule:
        return lambda local: composite.ops.get(local.site.op, slot)(local)

    return {kind: by_op(rule) for kind, rule in slots.items()} if composite.ops else slots


def _unknown(what: str, name: str, there: Iterable[str]) -> str:
    known = [known for known in dict.fromkeys(there) if known]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
    listed = f"it has {', '.join(near)}" if near else "none of them has a name"
    return (
        f"the composite has a rule for the {what} {name!r}, which the function does not: {listed}"
    )


def ends(scope: Scope) -> tuple[Collection[int], Collection[int]]:
    """Return the positions of the layers that see the image, and of those no other layer sees.

    What stands between is no layer: scales, activations, pools. Layers inside loops are neither.
    """
    return _reached(scope, reverse=False), _reached(scope, reverse=True)


def _reached(scope: Scope, *, reverse: bool) -> frozenset[int]:
    """Return the layers that a walk from one end of a program meets before any other."""
    past: set[int] = set()
    found = set()
    for place in reversed(scope.places) if reverse else scope.places:
        o = place.operation
        ways = o.operands[: o.active], o.outputs
        entered, left = reversed(ways) if reverse else ways
        layer = _is_layer(o) or any(_is_layer(p.operation) for s in place.scopes for p in every(s))
        if layer and place.site is not None and past.isdisjoint(entered):
            found.add(place.site.position)
        if layer or not past.isdisjoint(entered):
            past.update(left)
    return frozenset(found)


def _is_layer(o: Operation) -> bool:
    return o.kind is Kind.AFFINE and o.layered and not o.held


def _uses(o: Operation) -> int:
    """Return how often a layer uses a weight: once for each position of each image."""
    (aval,) = o.leader.output_avals
    own = weight_axes(o.leader, o.operands[0])
    return math.prod(n for axis, n in enumerate(aval.shape) if axis not in own)
