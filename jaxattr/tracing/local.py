"""An operation as a rule sees it, and the rules that change nothing or refuse."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.lowering import lower, with_packed_gates
from jaxattr.tracing import interpret, slopes
from jaxattr.tracing.dataflow import elementwise
from jaxattr.tracing.interpret import Equation, Program, Step
from jaxattr.tracing.operations import Operation, extremum, is_layer
from jaxattr.tracing.primitives import Form, Kind
from jaxattr.tracing.sites import Place, Scope, Site
from jaxattr.tracing.weights import Weighted, weighted


class UnsupportedOperation(NotImplementedError):
    """An operation that depends on the image and that a rule set cannot handle."""


class Local(NamedTuple):
    """An operation as a rule sees it.

    Attributes:
        site: where it stands.
        value: its function: operands to output.
        slope: of an activation, `d output / d operands[0]` from the same operands, elementwise,
            the same at a kink however the function is spelled.
        linear: of an affine operation, its function without the shift: what it does to changes.
        constant: of an affine operation, what it makes of zeros: its shift.
        weighted: of an affine operation, its effective weight, and its map with any other.
        active: how many of the operands depend on x; they come first.
        equations: what it consists of.
    """

    site: Site
    value: Callable[..., jax.Array]
    slope: Callable[..., jax.Array]
    linear: Callable[..., jax.Array]
    constant: Callable[..., jax.Array]
    weighted: Callable[..., Weighted]
    active: int
    equations: tuple[Equation, ...]


Rule: TypeAlias = Callable[[Local], Callable[..., jax.Array]]
"""From an operation to what stands in for it: same operands, same value, another VJP."""


def refuse(local: Local) -> Callable[..., jax.Array]:
    """Raise `UnsupportedOperation`: the rule of a kind that a rule set cannot handle."""
    raise UnsupportedOperation(
        f"no rule for {local.site.where}: it depends on the image, and its plain derivative would "
        "silently stand in for a rule. Write it with other operations, tell what it does by "
        f"jaxattr.register, or give `with_rules` a rule for {local.site.kind.value!r}"
    )


def plain(local: Local) -> Callable[..., jax.Array]:
    """Keep an operation's own derivative: the rule of a kind that a rule set passes over."""
    return local.value


def packed(local: Local) -> Callable[..., jax.Array]:
    """Keep an activation's own derivative, its gates packed as bytes for the backward pass."""
    made = {v for e in local.equations for v in e.outputs}
    entering = {a for e in local.equations for a in e.inputs if isinstance(a, int)} - made
    bounds = [e for e in local.equations if e.row.form is Form.BOUND]
    others = {e.primitive for e in local.equations if e.row.form is not Form.BOUND}
    chain = others <= {"convert_element_type"} and len(entering) == 1
    return with_packed_gates(local.value, local.site.op, bounds=len(bounds) if chain else 0)


def local(scope: Scope, place: Place) -> Local:
    """Return an operation as a rule sees it."""
    operation = place.operation
    assert place.site is not None
    return Local(
        place.site,
        partial(_value, operation),
        partial(_slope, operation),
        linear := partial(_linear, operation),
        partial(_constant, operation),
        partial(weighted, operation, lowered_step, linear, scope.nonnegative),
        operation.active,
        operation.equations,
    )


def _value(operation: Operation, *operands: Any) -> Any:
    if operation.kind is Kind.MAX_POOL and (name := extremum(operation.equations)):
        return getattr(lax, name)(*operands)  # ties are parted alike, however it is spelled
    program = Program(operation.equations, operation.operands, operation.outputs, {}, {})
    outputs = interpret.evaluate(program, map(lowered_step, operation.equations), *operands)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


class _Part(NamedTuple):
    """A value on the way through an affine operation."""

    value: Any
    active: bool


def _through_affine(
    operation: Operation,
    operands: Sequence[Any],
    run: Callable[[Equation, list[Any], list[int]], Sequence[Any]],
) -> Any:
    """Run an operation, told for each equation which of its inputs depend on x."""

    def through(e: Equation, parts: Sequence[_Part]) -> list[_Part]:
        active = [i for i, part in enumerate(parts) if part.active]
        outputs = run(e, [part.value for part in parts], active)
        return [_Part(value, bool(active)) for value in outputs]

    entering = zip(operation.operands, operands, strict=True)
    parts = {a: _Part(v, i < operation.active) for i, (a, v) in enumerate(entering)}
    found = interpret.walk(operation.equations, parts, through, lambda v: _Part(v, False))
    return found[operation.outputs[0]].value


def _linear(operation: Operation, *operands: Any) -> Any:
    """Run an affine operation on changes of what depends on x: every shift drops out."""

    def run(e: Equation, values: list[Any], active: list[int]) -> Sequence[Any]:
        adds = elementwise(e) or e.row.places or e.primitive == "scatter-add"
        if not (active and adds):
            return lowered_step(e).run(*values)
        return jax.jvp(*_restricted(e, values, active), tuple(values[i] for i in active))[1]

    return _through_affine(operation, operands, run)


def _restricted(e: Equation, values: list[Any], active: list[int]) -> tuple[Any, tuple]:
    """Return an equation as a function of its active inputs, and zeros for them."""

    def along(*changed: Any) -> Sequence[Any]:
        full = dict(enumerate(values)) | dict(zip(active, changed, strict=True))
        return tuple(interpret.apply(e, *full.values()))

    return along, tuple(jnp.zeros_like(values[i]) for i in active)


def _constant(operation: Operation, *operands: Any) -> Any:
    """Return what an affine operation makes of zeros; a layer itself need not run for that."""

    def run(e: Equation, values: list[Any], active: list[int]) -> Sequence[Any]:
        if active and is_layer(e):
            return [jnp.zeros(a.shape, a.dtype) for a in e.output_avals]
        return interpret.apply(e, *values)

    zeros = map(jnp.zeros_like, operands[: operation.active])
    return _through_affine(operation, (*zeros, *operands[operation.active :]), run)


def _slope(operation: Operation, *operands: Any) -> jax.Array:
    values = dict(zip(operation.operands, operands, strict=True))
    return slopes.slope(operation.equations, operation.operands[0], values)


def lowered_step(e: Equation) -> Step:
    """Return the step that runs one equation, fast on the CPU."""
    fast = lowering(e)
    if fast is None:
        return interpret.step(e)
    run = interpret.named(e, fast)
    return Step(lambda *operands: [run(*operands)], e.inputs, e.outputs)


def lowering(e: Equation) -> Callable[..., jax.Array] | None:
    """Return the other spelling of an equation, if it has one."""
    return lower(e.primitive, e.params, *e.input_avals)
