"""Run a function with the backward passes of chosen operations replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.tracing import elementwise, interpret, loops, slopes
from jaxattr.tracing.interpret import Equation, Program, Step
from jaxattr.tracing.kinds import Kind, Operation
from jaxattr.tracing.lowering import lower
from jaxattr.tracing.sites import Place, Scope, Site, every, opens_everything, survey
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
        weighted: of an affine operation, its effective weight, and its map with any other.
        moving: how many of the operands depend on x; they come first.
        equations: what it consists of.
    """

    site: Site
    value: Callable[..., jax.Array]
    slope: Callable[..., jax.Array]
    linear: Callable[..., jax.Array]
    weighted: Callable[..., Weighted]
    moving: int
    equations: tuple[Equation, ...]


Rule: TypeAlias = Callable[[Local], Callable[..., jax.Array]]
"""From an operation to what stands in for it: same operands, same value, another VJP."""


def with_rules(
    f: Callable[..., Any], rules: Mapping[str, Rule], *, needs: Sequence[str] = ()
) -> Callable[..., Any]:
    """Transform `f` into a function of the same values whose VJP follows `rules`.

    The jaxpr of `f` is read and every operation of a kind that `rules` names is replaced by the
    function that the rule makes of it; everything else keeps its own derivative. Convolutions
    and pools without a rule are lowered to code that runs fast on the CPU too, so
    `with_rules(f, {})` is `f` itself, read and lowered. Laws: values equal those of `f`; with no
    rules, so does the gradient.

    Args:
        f: a function of one argument, any JAX callable.
        rules: from kinds of operation (`"activation"`, `"affine"`, `"max_pool"`, `"linear"`,
            `"sum"`, `"product"`, `"statistic"`, `"unknown"`) to rules. A rule is given the
            operation and returns its replacement, usually a `jax.custom_vjp`.
        needs: kinds of which `f` must contain at least one.

    Returns:
        A function to transform like any other: `jit`, `vmap`, `grad`, `vjp`, to any order. A rule
        is a reverse rule: forward mode (`jax.jvp`, `jax.jacfwd`) is not defined.

    Raises:
        UnsupportedOperation: if there are rules, and `f` contains an operation of unknown kind
            that depends on the argument, for which `rules` has no entry.
        ValueError: if nothing in `f` is of a kind that `needs` names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr.rules import gates
        >>> f = lambda x: -jax.nn.relu(x)
        >>> g = with_rules(f, {"activation": gates.guided})
        >>> jax.grad(f)(2.0).item(), jax.grad(g)(2.0).item()
        (-1.0, 0.0)
    """

    def ruled(x: Any) -> Any:
        program, tree = interpret.read(f, x, opens=opens_everything if rules else _opens_layers)
        scope = survey(program)
        present = {p.operation.kind for p in every(scope)}
        if missing := [k for k in needs if k not in present]:
            kinds = ", ".join(sorted(k for k in present if k is not Kind.FREE)) or "nothing"
            raise ValueError(
                f"the function has no {' or '.join(missing)} that depends on its argument, so the "
                f"rules would change nothing; it has: {kinds}"
            )
        outputs = run_scope(scope, rules, *map(jnp.asarray, jax.tree.leaves(x)))
        return jax.tree.unflatten(tree, outputs)

    return ruled


def _opens_layers(eqn: Any) -> bool:
    layers = {"conv_general_dilated", "reduce_window_max", "reduce_window_sum"}
    return bool(interpret.primitives(eqn) & layers) and opens_everything(eqn)


def run(
    program: Program, rules: Mapping[str, Rule], *args: Any, moving: Sequence[int] | None = None
) -> list[Any]:
    """Run a program under rules, what has no rule lowered.

    Args:
        program: what to run.
        rules: as for `with_rules`.
        *args: values of its inputs.
        moving: the inputs that depend on x; all of them by default.
    """
    return run_scope(survey(program, moving), rules, *args)


def run_scope(scope: Scope, rules: Mapping[str, Rule], *args: Any) -> list[Any]:
    """Run a program whose operations were found, as `run` does."""
    return interpret.evaluate(scope.program, _steps(scope, rules), *args)


def _steps(scope: Scope, rules: Mapping) -> Iterator[Step]:
    made: set[int] = set()
    avals = scope.program.avals
    for place in scope.places:
        operation, site = place.operation, place.site
        if operation.kind is Kind.LOOP and any(_touched(s, rules) for s in place.scopes):
            functions = [partial(run_scope, s, rules) for s in place.scopes]
            yield loops.reenter(operation.equations[0], functions)
        elif site is not None and (rule := _rule(operation, rules)):
            yield Step(_ruled(scope, place, rule), operation.operands, operation.outputs)
        else:
            for e in operation.equations:
                if made.isdisjoint(e.outputs):
                    yield _lowered(avals, e)
                    made.update(e.outputs)


def _touched(scope: Scope, rules: Mapping) -> bool:
    """Whether a scope runs otherwise than as it stands."""
    return any(
        _rule(p.operation, rules) is not None
        or any(_lowering(scope.program.avals, e) is not None for e in p.operation.equations)
        or any(_touched(s, rules) for s in p.scopes)
        for p in scope.places
    )


def _rule(operation: Operation, rules: Mapping) -> Rule | None:
    default = refuse if rules and operation.kind is Kind.UNKNOWN else None
    return rules.get(operation.kind, default)


def refuse(local: Local) -> Callable[..., jax.Array]:
    """Raise `UnsupportedOperation`: the rule of a kind that a rule set cannot handle."""
    site = local.site
    where = f" in {site.name}" if site.name else ""
    raise UnsupportedOperation(
        f"no rule for `{site.op}` ({site.kind}, shape {site.shape}){where}, at {site.source}: it "
        "depends on the image, and its plain derivative would silently stand in for a rule. Write "
        f"it with other operations, or give `with_rules` a rule for {site.kind.value!r}"
    )


def plain(local: Local) -> Callable[..., jax.Array]:
    """Keep an operation's own derivative: the rule of a kind that a rule set passes over."""
    return local.value


def _ruled(scope: Scope, place: Place, rule: Rule) -> Callable[..., Sequence[Any]]:
    operation, avals = place.operation, scope.program.avals
    assert place.site is not None
    local = Local(
        place.site,
        partial(_value, avals, operation),
        partial(_slope, operation),
        linear := partial(_linear, avals, operation),
        partial(weighted, operation, partial(_lowered, avals), linear, scope.nonnegative),
        operation.moving,
        operation.equations,
    )
    replacement = interpret.named(operation.leader, rule(local))
    if len(operation.outputs) == 1:
        return lambda *operands: [replacement(*operands)]
    return replacement


def _value(avals: Mapping[int, Any], operation: Operation, *operands: Any) -> Any:
    program = Program(operation.equations, operation.operands, operation.outputs, {}, avals)
    steps = [_lowered(avals, e) for e in operation.equations]
    outputs = interpret.evaluate(program, steps, *operands)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


_WITH_CONSTANTS = {"concatenate", "stack", "pad", "dynamic_update_slice", "scatter"}
_WITH_CONSTANTS |= {"scatter-add", "scatter_add"}


def _linear(avals: Mapping[int, Any], operation: Operation, *operands: Any) -> Any:
    """Run an affine operation on changes of what moves: every shift drops out."""
    env = dict(zip(operation.operands, operands, strict=True))
    moves = set(operation.operands[: operation.moving])
    for e in operation.equations:
        values = [env[a] if isinstance(a, int) else a.val for a in e.inputs]
        moving = [i for i, a in enumerate(e.inputs) if isinstance(a, int) and a in moves]
        if moving and (elementwise.elementwise(e) or e.primitive in _WITH_CONSTANTS):
            outputs = _changed(e, values, moving)
        else:
            outputs = _lowered(avals, e).run(*values)
        env.update(zip(e.outputs, outputs, strict=True))
        moves.update(e.outputs if moving else ())
    return env[operation.outputs[0]]


def _changed(e: Equation, values: list[Any], moving: list[int]) -> Sequence[Any]:
    """Differentiate an equation along its moving inputs."""

    def along(*moved: Any) -> Sequence[Any]:
        full = dict(enumerate(values)) | dict(zip(moving, moved, strict=True))
        return tuple(interpret.apply(e, *full.values()))

    changes = tuple(values[i] for i in moving)
    return jax.jvp(along, tuple(map(jnp.zeros_like, changes)), changes)[1]


def _slope(operation: Operation, *operands: Any) -> jax.Array:
    values = dict(zip(operation.operands, operands, strict=True))
    return slopes.slope(operation.equations, operation.operands[0], values)


def _lowered(avals: Mapping[int, Any], e: Equation) -> Step:
    fast = _lowering(avals, e)
    if fast is None:
        return interpret.step(e)
    run = interpret.named(e, fast)
    return Step(lambda *operands: [run(*operands)], e.inputs, e.outputs)


def _lowering(avals: Mapping[int, Any], e: Equation) -> Callable[..., jax.Array] | None:
    operands = [avals[a] if isinstance(a, int) else a.aval for a in e.inputs]
    return lower(e.primitive, e.eqn.params, *operands)
