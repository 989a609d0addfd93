"""What a function adds on its way: its biases, and the offsets of its activations, term by term.

Around `x` every operation is a linear map of what enters, plus a shift: the bias of a layer with
its BatchNorm folded in, `a - slope * z` for an activation that does not scale with its input, such
as a ReLU6 or a SiLU, `-a b` for a product. A gradient passes the linear maps; the shifts are where
the rest of the output comes from.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.lowering.varying import laid_out_like
from jaxattr.programs import dataflow
from jaxattr.programs.control_flow import written_out
from jaxattr.programs.degrees import homogeneous
from jaxattr.programs.interpret import Equation, restrict
from jaxattr.programs.primitives import Kind
from jaxattr.programs.slopes import select
from jaxattr.structures.operations import Operation
from jaxattr.structures.roles import Role, roles
from jaxattr.tracing.local import Local, Rule
from jaxattr.tracing.sites import Scope, Site, every
from jaxattr.tracing.transform import trace
from jaxattr.types import Array

_RULED = (Kind.AFFINE, Kind.LINEAR, Kind.SUM, Kind.ACTIVATION, Kind.PRODUCT, Kind.STATISTIC)


class Shift(NamedTuple):
    """An operation that adds something.

    Attributes:
        site: where it stands.
        layer: the equation that makes it a layer, or the last one of any other operation.
        channel_axis: of its output; the last where no convolution tells.
        batched: whether the first axis of its output is the batch.
    """

    site: Site
    layer: Equation
    channel_axis: int
    batched: bool


class Shifted(NamedTuple):
    """A function with its shifts made visible.

    Attributes:
        shifts: by module path, with the operation and its place behind it if that is not unique.
        output: `(x, grown) -> f(x)`, whose gradient with respect to `grown[name]` is the gradient
            at the output of the operation, times its shift, summed to the shape of `grown[name]`.
            The value does not depend on `grown`.
        activations: how many activations the function has.
        batched: whether what is added can be told apart image by image: all has the batch in front,
            or there is but one image.
    """

    shifts: dict[str, Shift]
    output: Callable[[Array, Mapping[str, Array]], Array]
    activations: int
    batched: bool


def shifted(f: Callable[[Array], Array], x: Array, activation: Rule) -> Shifted:
    """Find all that `f` adds.

    Law: with an `activation` that passes the true gradient, the gradient times `x` and all terms
    add up to `f(x)`, for any `f` (Euler's theorem, operation by operation).

    Args:
        f: images to logits.
        x: the images, or their shape.
        activation: the backward rule for activations.
    """
    traced = trace(f, x, write_out=written_out)
    batch = x.shape[0]
    found = {shift.site.position: shift for shift in _shifts(traced.scope, batch)}
    paths = Counter(shift.site.name for shift in found.values())
    names = {p: _name(shift.site, paths) for p, shift in found.items()}

    def output(x: Array, grown: Mapping[str, Array]) -> Array:
        def rule(local: Local) -> Callable[..., Array]:
            value = activation(local) if local.site.kind is Kind.ACTIVATION else local.value
            name = names.get(local.site.position, "")
            if name not in grown:
                return value
            shift = _shift(local)
            return lambda *operands: _term(value(*operands), grown[name], shift(*operands))

        return traced.run(dict.fromkeys(_RULED, rule), x)

    activations = sum(p.operation.kind is Kind.ACTIVATION for p in every(traced.scope))
    batched = batch == 1 or all(shift.batched for shift in found.values())
    return Shifted({names[p]: shift for p, shift in found.items()}, output, activations, batched)


def _shifts(scope: Scope, batch: int) -> Iterator[Shift]:
    """Yield every place of a scope and of those inside it that adds something."""
    known = roles(dataflow.flow(scope.program, scope.program.inputs))
    for place in scope.places:
        for inner in place.scopes:
            yield from _shifts(inner, batch)
        operation, site = place.operation, place.site
        if site is not None and _adds(operation):
            of_output = known.get(operation.outputs[0], ())
            last = len(site.shape) - 1
            channel = of_output.index(Role.CHANNEL) if Role.CHANNEL in of_output else last
            batched = site.shape[:1] == (batch,) and of_output[:1] == (Role.BATCH,)
            yield Shift(site, operation.leader, channel, batched)


def _name(site: Site, paths: Counter) -> str:
    if site.name and paths[site.name] == 1:
        return site.name
    return f"{site.name}/{site.op}[{site.position}]".lstrip("/")


def _adds(operation: Operation) -> bool:
    """Whether an operation is more than a linear map of what enters, around any point."""
    if operation.kind in (Kind.PRODUCT, Kind.STATISTIC):
        return True
    active = operation.operands[: operation.active]
    return operation.kind in _RULED and not homogeneous(operation.equations, active)


def _shift(local: Local) -> Callable[..., Array]:
    """Return the function that computes what an operation adds."""
    match local.site.kind:
        case Kind.ACTIVATION:
            return lambda z, *rest: local.value(z, *rest) - local.slope(z, *rest) * z
        case Kind.PRODUCT | Kind.STATISTIC:
            return lambda *operands: _remainder(local, *operands)
    return local.constant


def _remainder(local: Local, *operands: Any) -> Array:
    """Return what is left of a product or quotient after its linear part, `-a b` for `a b`."""
    active = [i for i in range(local.active) if jnp.issubdtype(operands[i].dtype, jnp.inexact)]
    changes = tuple(operands[i] for i in active)
    a, linear = jax.jvp(restrict(local.value, operands, active), changes, changes)
    return a - linear


def _term(value: Array, factor: Array, shift: Array) -> Array:
    return _grown(value, laid_out_like(jnp.broadcast_to(factor, value.shape), value), shift)


@jax.custom_vjp
def _grown(value: Array, factor: Array, shift: Array) -> Array:
    """Return `value + factor * shift` for a factor of zero."""
    return value


_grown.defvjp(
    lambda value, factor, shift: (value, shift), lambda shift, g: (g, select(shift, g), None)
)
