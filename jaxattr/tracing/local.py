"""An operation as a rule sees it, and the rules that change nothing or refuse."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.lowering import lower, with_packed_gates
from jaxattr.lowering.varying import vary_like
from jaxattr.programs import interpret, slopes
from jaxattr.programs.interpret import Equation, Program, Step, depending, restrict
from jaxattr.programs.primitives import Form, Kind
from jaxattr.structures.operations import Operation, extremum, is_layer
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
        "jaxattr.register, or take a method without rules, such as integrated_gradients; where "
        f"`with_rules` is called directly, give it a rule for {local.site.kind.value!r}"
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


def with_backward(
    local: Local,
    backward: Callable[[Any, Sequence[Any], jax.Array], Sequence[jax.Array]],
    given: Any = None,
) -> Callable[..., jax.Array]:
    """Return an operation with another backward pass, in which its weights have no derivative.

    Args:
        local: the operation.
        backward: `(given, operands, g) -> cotangents` of the operands that depend on x, from all
            operands and the cotangent of the output.
        given: arrays that `backward` needs. They have no part in the value, so their own cotangents
            are zero; they are learned by differentiating the backward pass.
    """

    @jax.custom_vjp
    def operation(given: Any, *operands: Any) -> jax.Array:
        return local.value(*operands)

    def fwd(given: Any, *operands: Any) -> tuple[jax.Array, Any]:
        return local.value(*operands), (given, operands)

    def bwd(residuals: Any, g: jax.Array) -> tuple[Any, ...]:
        given, operands = residuals
        pairs = zip(backward(given, operands, g), operands[: local.active], strict=True)
        back = [cotangent.astype(operand.dtype) for cotangent, operand in pairs]
        return (None, *back, *[None] * (len(operands) - len(back)))

    operation.defvjp(fwd, bwd)
    return lambda *operands: operation(given, *operands)


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
    return _run(operation, operands, lambda e: lowered_step(e).run)


def _run(
    operation: Operation, operands: Sequence[Any], run: Callable[[Equation], Callable[..., Any]]
) -> Any:
    program = Program(operation.equations, operation.operands, operation.outputs, {}, {})
    steps = [Step(run(e), e.inputs, e.outputs) for e in operation.equations]
    outputs = interpret.evaluate(program, steps, *operands)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _linear(operation: Operation, *operands: Any) -> Any:
    """Run an affine operation on changes of what depends on x: every shift drops out."""
    changing = depending(operation.equations, operation.operands[: operation.active])

    def run(e: Equation) -> Callable[..., Any]:
        places = [i for i, a in enumerate(e.inputs) if isinstance(a, int) and a in changing]
        adds = e.row.form in _ADDING or e.row.places or e.primitive == "scatter-add"
        return partial(_change, e, places) if places and adds else lowered_step(e).run

    return _run(operation, operands, run)


_ADDING = {Form.SHIFT, Form.SELECT}


def _change(e: Equation, places: Sequence[int], *values: Any) -> Sequence[Any]:
    """Return how an equation that is affine in all its inputs changes with some of them."""
    numbers = [i for i in places if jnp.issubdtype(values[i].dtype, jnp.inexact)]
    changes = tuple(values[i] for i in numbers)
    zeros = tuple(map(jnp.zeros_like, changes))
    return jax.jvp(restrict(partial(interpret.apply, e), values, numbers), zeros, changes)[1]


def _constant(operation: Operation, *operands: Any) -> Any:
    """Return what an affine operation makes of zeros; a layer itself need not run for that."""
    changing = depending(operation.equations, operation.operands[: operation.active])

    def run(e: Equation) -> Callable[..., Any]:
        if is_layer(e) and not changing.isdisjoint(e.outputs):
            zero = lambda a: vary_like(jnp.zeros(a.shape, a.dtype), a)
            return lambda *values: list(map(zero, e.output_avals))
        return partial(interpret.apply, e)

    zeros = map(jnp.zeros_like, operands[: operation.active])
    return _run(operation, (*zeros, *operands[operation.active :]), run)


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
