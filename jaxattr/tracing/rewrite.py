"""Run a function with the backward passes of chosen operations replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxattr.lowering import LOWERED, kept
from jaxattr.tracing import interpret, loops
from jaxattr.tracing.interpret import Equation, Program, Step
from jaxattr.tracing.kinds import Kind, Operation
from jaxattr.tracing.local import Rule, local, lowered, lowering, noting, refuse
from jaxattr.tracing.sites import Place, Scope, every, opens_everything, survey


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
    layers = interpret.primitives(eqn) & LOWERED.keys()
    return interpret.idle(eqn) or (bool(layers) and opens_everything(eqn))


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
    shared = _shared(scope.program)
    made: set[int] = set()
    for place in scope.places:
        moves = place.operation.kind is not Kind.FREE
        for step in _run(scope, place, rules, made):
            if moves and not shared.isdisjoint(step.outputs):
                step = step._replace(run=partial(_keeping, step, shared))
            yield step


def _shared(program: Program) -> set[int]:
    """Return what a lowered layer reads, and some other equation as well."""
    readers: dict[int, list[Equation]] = {}
    for e in program.equations:
        for a in {a for a in e.inputs if isinstance(a, int)}:
            readers.setdefault(a, []).append(e)
    return {
        a
        for a, by in readers.items()
        if len(by) > 1 and any(e.primitive in LOWERED for e in by)
        if jnp.issubdtype(program.avals[a].dtype, jnp.floating)
    }


def _keeping(step: Step, shared: set[int], *operands: Any) -> list[Any]:
    outputs = zip(step.outputs, step.run(*operands), strict=True)
    return [kept(value) if a in shared else value for a, value in outputs]


def _run(scope: Scope, place: Place, rules: Mapping, made: set[int]) -> Iterator[Step]:
    """Yield what runs one place; `made` are the values that need not be made again."""
    operation = place.operation
    if operation.kind is Kind.LOOP and any(_touched(s, rules) for s in place.scopes):
        functions = [partial(run_scope, s, rules) for s in place.scopes]
        yield loops.reenter(operation.equations[0], functions)
    elif place.site is not None and (rule := _rule(scope, operation, rules)):
        yield Step(_ruled(scope, place, rule), operation.operands, operation.outputs)
    else:
        for e in operation.equations:
            if made.isdisjoint(e.outputs):
                yield lowered(scope.program.avals, e)
                made.update(e.outputs)


def _touched(scope: Scope, rules: Mapping) -> bool:
    """Whether a scope runs otherwise than as it stands."""
    return any(
        _rule(scope, p.operation, rules) is not None
        or any(lowering(scope.program.avals, e) is not None for e in p.operation.equations)
        or any(_touched(s, rules) for s in p.scopes)
        for p in scope.places
    )


def _rule(scope: Scope, operation: Operation, rules: Mapping) -> Rule | None:
    default = None
    if rules and operation.kind is Kind.UNKNOWN:
        default = refuse
    elif operation.kind is Kind.ACTIVATION and scope.layered:
        default = noting
    return rules.get(operation.kind, default)


def _ruled(scope: Scope, place: Place, rule: Rule) -> Callable[..., Sequence[Any]]:
    replacement = interpret.named(place.operation.leader, rule(local(scope, place)))
    if len(place.operation.outputs) == 1:
        return lambda *operands: [replacement(*operands)]
    return replacement
