"""Run a function with the backward passes of chosen operations replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.lowering import LOWERED, materialize
from jaxattr.programs import control_flow, interpret
from jaxattr.programs.interpret import Equation, Inline, Program, Step, WriteOut
from jaxattr.programs.primitives import Kind
from jaxattr.structures.factors import Hold
from jaxattr.structures.operations import Operation
from jaxattr.tracing.local import Local, Rule, local, lowered_step, lowering, packed, plain, refuse
from jaxattr.tracing.sites import Place, Scope, every, should_inline, survey

RULED = frozenset(Kind) - {Kind.STRUCTURE, Kind.CONTROL, Kind.INACTIVE}
"""The kinds of operation that a rule can stand in for."""


class Observed(NamedTuple):
    """An operation, and what entered it and left it in one run."""

    local: Local
    operands: tuple[Any, ...]
    output: jax.Array


class Traced(NamedTuple):
    """A function, read: what it consists of, to be run under any rules.

    Attributes:
        scope: its program, with its operations found.
        tree: the tree structure of its output.
    """

    scope: Scope
    tree: Any

    def run(self, rules: Mapping[str, Rule], *args: Any) -> Any:
        """Return the function's output under rules, what has no rule lowered."""
        leaves = map(jnp.asarray, jax.tree.leaves(args))
        return jax.tree.unflatten(self.tree, run_scope(self.scope, rules, *leaves))

    def observe(self, rules: Mapping[str, Rule], *args: Any) -> dict[int, Observed]:
        """Run the function under rules, and return what ran under each rule, by position."""
        found: dict[int, Observed] = {}

        def observing(rule: Rule) -> Rule:
            def observed(local: Local) -> Callable[..., jax.Array]:
                run = rule(local)

                def value(*operands: Any) -> jax.Array:
                    output = run(*operands)
                    found[local.site.position] = Observed(local, operands, output)
                    return output

                return value

            return observed

        self.run({kind: observing(rule) for kind, rule in rules.items()}, *args)
        return dict(sorted(found.items()))


def trace(
    f: Callable[..., Any] | Traced,
    *args: Any,
    inline: Inline = should_inline,
    write_out: WriteOut | None = None,
    hold: Hold | None = None,
) -> Traced:
    """Read a function.

    Args:
        f: any JAX function, or what has been read already.
        *args: its arguments, or their shapes; it is differentiated with respect to all of them.
        inline: which calls with a derivative of their own are looked into.
        write_out: gives the function that takes the place of a loop.
        hold: which factors of products are held, as for `jaxattr.freeze`; by default none.
    """
    if isinstance(f, Traced) and write_out is None:
        return Traced(survey(f.scope.program, hold=hold), f.tree)
    read = partial(f.run, {}) if isinstance(f, Traced) else f
    write_out = write_out or (lambda _: None)
    program, tree = interpret.read(read, *args, inline=inline, write_out=write_out)
    return Traced(survey(program, hold=hold), tree)


def with_rules(
    f: Callable[..., Any], rules: Mapping[str, Rule], *, needs: Sequence[str] = ()
) -> Callable[..., Any]:
    """Transform `f` into a function of the same values whose VJP follows `rules`.

    The jaxpr of `f` is read and every operation of a kind that `rules` names is replaced by the
    function that the rule makes of it; everything else keeps its own derivative. Convolutions
    and pools without a rule are lowered to code that runs fast on the CPU too, as `lowered` does
    it. Laws: values equal those of `f`; with no rules, so does the gradient.

    Args:
        f: a function of one argument, any JAX callable.
        rules: from kinds of operation (`"activation"`, `"affine"`, `"max_pool"`, `"linear"`,
            `"sum"`, `"product"`, `"statistic"`, `"unknown"`) to rules. A rule is given the
            operation and returns its replacement, usually a `jax.custom_vjp`.
        needs: kinds of which `f` must contain at least one.

    Returns:
        A function to transform like any other: `jit`, `vmap`, `grad`, `vjp`, to any order. A rule
        is a reverse rule: forward mode (`jax.jvp`, `jax.jacfwd`) is defined of its gradient, and
        of itself only where no rule stands.

    Raises:
        UnsupportedOperation: if there are rules, and `f` contains an operation of unknown kind
            that depends on the argument, for which `rules` has no entry.
        ValueError: if `rules` or `needs` names a kind that there is not, or nothing in `f` is of a
            kind that `needs` names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr.rules import gates
        >>> f = lambda x: -jax.nn.relu(x)
        >>> g = with_rules(f, {"activation": gates.guided})
        >>> jax.grad(f)(2.0).item(), jax.grad(g)(2.0).item()
        (-1.0, 0.0)
    """
    for kind in (*rules, *needs):
        if kind not in RULED:
            raise ValueError(
                f"there is no rule for {kind!r}: rules are for the kinds {', '.join(sorted(RULED))}"
            )

    def ruled(x: Any) -> Any:
        traced = trace(f, x, inline=should_inline if rules else _should_inline_layers)
        present = {p.operation.kind for p in every(traced.scope)} - {Kind.INACTIVE}
        if missing := [k for k in needs if k not in present]:
            raise ValueError(
                f"the function has no {' or '.join(missing)} that depends on its argument, so the "
                f"rules would change nothing; it has: {', '.join(sorted(present)) or 'nothing'}"
            )
        return traced.run(rules, x)

    return ruled


def lowered(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the same values and gradients that runs fast on the CPU too.

    Convolutions, pools and gates are spelled as XLA compiles them well, for the forward and the
    backward pass (`docs/speed.md`). Every method reads its classifier so; inside `jit`, what has no
    faster spelling stays as it stands. Laws: values and derivatives equal those of `f`.

    Args:
        f: a function of one argument, any JAX callable.

    Returns:
        A function to transform like any other, by reverse and forward mode, to any order.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.grad(lowered(lambda x: jnp.sin(x)))(0.0).item()
        1.0
    """
    return with_rules(f, {})


def _should_inline_layers(e: Equation) -> bool:
    layers = interpret.inner_primitives(e) & LOWERED.keys()
    return bool(layers) and should_inline(e)


def run_scope(scope: Scope, rules: Mapping[str, Rule], *args: Any) -> list[Any]:
    """Run a program whose operations were found under rules, what has no rule lowered."""
    return interpret.evaluate(scope.program, _steps(scope, rules), *args)


def _steps(scope: Scope, rules: Mapping) -> Iterator[Step]:
    shared = _shared(scope.program)
    made: set[int] = set()
    for place in scope.places:
        active = place.operation.kind is not Kind.INACTIVE
        for step in _run(scope, place, rules, made):
            if active and not shared.isdisjoint(step.outputs):
                step = step._replace(run=partial(_materialized, step, shared))
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


def _materialized(step: Step, shared: set[int], *operands: Any) -> list[Any]:
    outputs = zip(step.outputs, step.run(*operands), strict=True)
    return [materialize(value) if a in shared else value for a, value in outputs]


def _run(scope: Scope, place: Place, rules: Mapping, made: set[int]) -> Iterator[Step]:
    """Yield what runs one place; `made` are the values that need not be made again."""
    operation = place.operation
    if operation.kind is Kind.CONTROL and any(_changes(s, rules) for s in place.scopes):
        functions = [partial(run_scope, s, rules) for s in place.scopes]
        programs = [s.program for s in place.scopes]
        yield control_flow.rerun(operation.equations[0], programs, functions)
    elif place.site is not None and (rule := _rule(scope, operation, rules)):
        yield Step(_ruled(scope, place, rule), operation.operands, operation.outputs)
    else:
        for e in operation.equations:
            if made.isdisjoint(e.outputs):
                yield lowered_step(e)
                made.update(e.outputs)


def _changes(scope: Scope, rules: Mapping) -> bool:
    """Whether a scope runs otherwise than as it stands."""
    return any(
        _rule(scope, p.operation, rules) is not None
        or any(lowering(e) is not None for e in p.operation.equations)
        or any(_changes(s, rules) for s in p.scopes)
        for p in scope.places
    )


def _rule(scope: Scope, operation: Operation, rules: Mapping) -> Rule | None:
    default = None
    if rules:
        default = {Kind.UNKNOWN: refuse, Kind.MAX_POOL: plain}.get(operation.kind)
    if operation.kind is Kind.ACTIVATION and scope.lowered:
        default = packed
    return rules.get(operation.kind, default)


def _ruled(scope: Scope, place: Place, rule: Rule) -> Callable[..., Sequence[Any]]:
    replacement = interpret.named(place.operation.leader, rule(local(scope, place)))
    if len(place.operation.outputs) == 1:
        return lambda *operands: [replacement(*operands)]
    return replacement
