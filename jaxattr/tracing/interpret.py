"""Read a function into a flat list of equations, and run such a list again.

This is the only file that knows how JAX writes a program down. It relies on the public
`make_jaxpr`, on `eval_jaxpr` for one equation at a time, and on nothing else: no primitive is
bound by hand and no tracer is subclassed, since both change from release to release.
"""

import functools
import itertools
import re
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.core import eval_jaxpr
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn, Literal

Atom: TypeAlias = int | Literal
"""A value of a program (a number) or a constant written into it."""


class Equation(NamedTuple):
    """One primitive application, with the calls around it inlined away."""

    eqn: JaxprEqn
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    path: str  # module path or named scopes, "layer3/0/conv1"
    calls: tuple[tuple[int, str], ...]  # the inlined calls it stood in: (serial number, name)
    stack: Any  # the name stack of those calls
    origin: JaxprEqn  # it, or the call in the user's code that led to it

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.eqn.primitive.name

    @property
    def source(self) -> str:
        """The user's file, line and function."""
        return _source(self.origin)


class Program(NamedTuple):
    """A function as equations over numbered values."""

    equations: tuple[Equation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[Atom, ...]
    constants: Mapping[int, Any]
    avals: Mapping[int, Any]


class Step(NamedTuple):
    """Something to run: `outputs = run(*operands)`."""

    run: Callable[..., Sequence[Any]]
    operands: tuple[Atom, ...]
    outputs: tuple[int, ...]


Opens: TypeAlias = Callable[[JaxprEqn], bool]
"""Whether to look inside a call that carries its own derivative, or a remat."""

_CALLS = {"jit", "pjit", "closed_call", "core_call"}
_DERIVATIVES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
REMAT = {"remat", "remat2", "checkpoint"}
_FRAMEWORKS = [f"/site-packages/{name}/" for name in ("jax", "flax", "haiku", "equinox", "keras")]
_FRAMEWORKS += [sysconfig.get_path("stdlib") + "/" + name for name in ("functools", "contextlib")]
_TRANSFORM = re.compile(r"\w+\(([^()]*)\)")


def read(f: Callable, *args: Any, opens: Opens) -> tuple[Program, Any]:
    """Trace `f` and return its program and the tree structure of its output.

    Args:
        f: any JAX function.
        *args: arrays or shapes to trace it with.
        opens: says of a `custom_jvp`, `custom_vjp` or remat call whether its body is inlined.
    """
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    return flatten(closed.jaxpr, closed.consts, opens), jax.tree.structure(shape)


def flatten(jaxpr: Jaxpr, consts: Sequence[Any], opens: Opens) -> Program:
    """Return the program of a jaxpr, its calls inlined."""
    numbers, serials = itertools.count(), itertools.count()
    equations: list[Equation] = []
    constants: dict[int, Any] = {}
    avals: dict[int, Any] = {}

    def number(var: Any) -> int:
        avals[n := next(numbers)] = var.aval
        return n

    def constant(var: Any, value: Any) -> int:
        constants[n := number(var)] = value
        return n

    def known(jaxpr: Jaxpr, consts: Sequence[Any]) -> dict[Any, Atom]:
        return {v: constant(v, c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def visit(
        jaxpr: Jaxpr,
        env: dict[Any, Atom],
        calls: tuple[tuple[int, str], ...],
        stack: Any,
        origin: JaxprEqn | None,
    ) -> list[Atom]:
        def atom(v: Any) -> Atom:
            return v if isinstance(v, Literal) else env[v]

        for eqn in jaxpr.eqns:
            inputs = tuple(map(atom, eqn.invars))
            inner = stack + eqn.source_info.name_stack
            name = eqn.primitive.name
            platforms = _platforms(eqn)
            if name in _CALLS or platforms or (name in _DERIVATIVES | REMAT and opens(eqn)):
                body, body_consts = opened(bodies(eqn)[platforms.index(None) if platforms else 0])
                arguments = inputs[1:] if platforms else inputs
                env_ = dict(zip(body.invars, arguments, strict=True)) | known(body, body_consts)
                call = (next(serials), called(eqn))
                library = origin or (eqn if _framework(_defined(body)) else None)
                results = visit(body, env_, (*calls, call), inner, library)
                env |= dict(zip(eqn.outvars, results, strict=True))
                continue
            outputs = tuple(map(number, eqn.outvars))
            env |= dict(zip(eqn.outvars, outputs, strict=True))
            path = _path(inner)
            equations.append(Equation(eqn, inputs, outputs, path, calls, stack, origin or eqn))
        return list(map(atom, jaxpr.outvars))

    env = known(jaxpr, consts)
    invars = tuple(map(number, jaxpr.invars))
    env |= dict(zip(jaxpr.invars, invars, strict=True))
    outputs = tuple(visit(jaxpr, env, (), source_info_util.new_name_stack(), None))
    return Program(tuple(equations), invars, outputs, constants, avals)


def evaluate(program: Program, steps: Iterable[Step], *args: Any) -> list[Any]:
    """Run a program given as steps, each value dropped after its last use."""
    steps = tuple(steps)
    last = {a: i for i, s in enumerate(steps) for a in s.operands if isinstance(a, int)}
    last |= {a: len(steps) for a in program.outputs if isinstance(a, int)}
    env = dict(program.constants) | dict(zip(program.inputs, args, strict=True))

    def value(a: Atom) -> Any:
        return env[a] if isinstance(a, int) else a.val

    for i, step in enumerate(steps):
        outputs = step.run(*map(value, step.operands))
        env.update(zip(step.outputs, outputs, strict=True))
        for a in (*step.operands, *step.outputs):
            if isinstance(a, int) and last.get(a, -1) <= i:
                env.pop(a, None)
    return [value(a) for a in program.outputs]


def step(equation: Equation) -> Step:
    """Return the step that runs one equation as it stands."""
    return Step(functools.partial(apply, equation), equation.inputs, equation.outputs)


def apply(equation: Equation, *values: Any) -> Sequence[Any]:
    """Run one equation on values of its inputs, under its own name and source line."""
    eqn = equation.eqn
    known = {v: x for v, x in zip(eqn.invars, values, strict=True) if not isinstance(v, Literal)}
    jaxpr = _empty().replace(
        invars=list(known), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects
    )
    with _under(equation.stack):
        return eval_jaxpr(jaxpr, (), *known.values())


def named(equation: Equation, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return `run` with everything in it named and placed as the equation was."""
    info = equation.eqn.source_info

    def inside(*values: Any) -> Any:
        stack = source_info_util.current_name_stack() + equation.stack + info.name_stack
        with source_info_util.user_context(info.traceback, name_stack=stack):
            return run(*values)

    return inside


def bodies(eqn: JaxprEqn) -> list[Any]:
    """Return the jaxprs among an equation's parameters, closed or not, in a fixed order."""
    found = []
    for key in sorted(eqn.params, key=lambda k: (k != "cond_jaxpr", k)):
        value = eqn.params[key]
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                found.append(item)
    return found


def primitives(eqn: JaxprEqn) -> set[str]:
    """Return the names of the primitives that an equation runs: its own, or those of its body."""
    name = eqn.primitive.name
    if name not in _CALLS | _DERIVATIVES | REMAT | {"scan", "while", "cond"}:
        return set() if name == "platform_index" else {name}
    platforms = _platforms(eqn)
    found = [bodies(eqn)[platforms.index(None)]] if platforms else bodies(eqn)
    return {p for b in found for e in opened(b)[0].eqns for p in primitives(e)}


def idle(eqn: JaxprEqn) -> bool:
    """Whether a call means nothing, and only says so in another way on some platform.

    An identity with a derivative of its own, such as one that turns the gradient round, does mean
    something.
    """
    if eqn.primitive.name not in _DERIVATIVES or primitives(eqn):
        return False
    body, _ = opened(bodies(eqn)[0])
    return any(_platforms(e) for e in body.eqns)


def called(eqn: JaxprEqn) -> str:
    """Return the name of the function that a call runs."""
    if isinstance(name := eqn.params.get("name"), str):
        return name
    info = getattr(opened(bodies(eqn)[0])[0], "debug_info", None)
    return getattr(info, "func_name", None) or eqn.primitive.name


@functools.cache
def _empty() -> Jaxpr:
    return jax.make_jaxpr(lambda: ())().jaxpr


def _platforms(eqn: JaxprEqn) -> tuple[Any, ...]:
    """Return the platforms of a `lax.platform_dependent` that has a default, or nothing.

    The default is what it means; other branches say the same in another way, as our own do.
    """
    platforms = eqn.params.get("branches_platforms") or ()
    return platforms if None in platforms else ()


def _source(eqn: JaxprEqn) -> str:
    """Return where the user's code made an equation, past the frames of JAX and the frameworks."""
    frames = getattr(eqn.source_info.traceback, "frames", ())
    for frame in frames:
        if not _framework(frame.file_name):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(eqn.source_info) or "an unknown line"


def _framework(file: str) -> bool:
    return any(part in file for part in _FRAMEWORKS)


def _defined(jaxpr: Jaxpr) -> str:
    """Return where the function that a jaxpr was traced from is defined."""
    return getattr(getattr(jaxpr, "debug_info", None), "func_src_info", None) or ""


def opened(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr and its constants, whether it was closed or not."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _under(stack: Any) -> Any:
    full = source_info_util.current_name_stack() + stack
    return source_info_util.user_context(None, name_stack=full)


def _path(stack: Any) -> str:
    """Return a name stack without the transformations in it: `jvp(vmap(a))/b` is `a/b`."""
    text = str(stack)
    while (shorter := _TRANSFORM.sub(r"\1", text)) != text:
        text = shorter
    return "/".join(part for part in text.split("/") if part)
