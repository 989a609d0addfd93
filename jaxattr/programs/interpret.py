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
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
from jax.core import eval_jaxpr
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxattr.frameworks import entering
from jaxattr.programs import primitives
from jaxattr.programs.primitives import Call, Row

Atom: TypeAlias = int | Literal
"""A value of a program (a number) or a constant written into it."""
Inline: TypeAlias = Callable[["Equation"], bool]
"""Whether to look inside a call that carries its own derivative, or a remat."""
WriteOut: TypeAlias = Callable[["Equation"], Callable[..., Sequence[Any]] | None]
"""From a loop or branch to a function of its inputs without one, or None to keep it."""
V = TypeVar("V")


class Equation(NamedTuple):
    """One primitive application, with the calls around it inlined away."""

    eqn: JaxprEqn
    inputs: tuple[Atom, ...] = ()
    outputs: tuple[int, ...] = ()
    path: str = ""  # module path or named scopes, "layer3/0/conv1"
    calls: tuple[tuple[int, str], ...] = ()  # the inlined calls around it: (serial number, name)
    stack: Any = None  # the name stack of those calls
    origin: JaxprEqn | None = None  # the call in the user's code that led to it, if it is no other

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.eqn.primitive.name

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameters of the primitive."""
        return self.eqn.params

    @property
    def input_avals(self) -> tuple[Any, ...]:
        """Shape and dtype of its inputs."""
        return tuple(v.aval for v in self.eqn.invars)

    @property
    def output_avals(self) -> tuple[Any, ...]:
        """Shape and dtype of its outputs."""
        return tuple(v.aval for v in self.eqn.outvars)

    @property
    def row(self) -> Row:
        """What is known of the primitive, or of the function that it calls."""
        name = self.called
        return primitives.row(name if primitives.registered(name) else self.primitive)

    @property
    def called(self) -> str:
        """Name of the function that a call runs, or of the primitive."""
        known = primitives.TABLE.get(self.primitive)
        if known is not None and known.call is None:
            return self.primitive
        names = (self.params.get(key) for key in ("name", "target_name"))
        if found := [name for name in names if isinstance(name, str)]:
            return found[0]
        if known is None:
            return getattr(self.params.get("name_and_src_info"), "name", self.primitive)
        info = getattr(_opened(_bodies(self.eqn)[0])[0], "debug_info", None)
        return getattr(info, "func_name", None) or self.primitive

    @property
    def resizes(self) -> bool:
        """Whether it is a step of `jax.image`, whoever called it and whatever that was called."""
        frames = getattr(self.eqn.source_info.traceback, "frames", ())
        return any("/jax/_src/image/" in frame.file_name for frame in frames)

    @property
    def info(self) -> Any:
        """Its names, and the frames of the user's call that led to it."""
        own = self.eqn.source_info
        call = self.origin and self.origin.source_info.traceback
        return own.replace(traceback=call) if call else own

    @property
    def source(self) -> str:
        """The user's file, line and function, past the frames of JAX and the frameworks."""
        info = self.info
        for frame in getattr(info.traceback, "frames", ()):
            if not _is_framework(frame.file_name):
                return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
        return source_info_util.summarize(info) or "an unknown line"


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


_FRAMEWORKS = [f"/site-packages/{name}/" for name in ("jax", "flax", "haiku", "equinox", "keras")]
_FRAMEWORKS += [sysconfig.get_path("stdlib") + "/" + name for name in ("functools", "contextlib")]
_FRAMEWORKS += [entering.__file__]
_CLASS = "eqx.nn."  # how Equinox names a layer's class, beside which it has a name of its own
_TRANSFORM = re.compile(r"\w+\(([^()]*)\)")


def read(
    f: Callable, *args: Any, inline: Inline, write_out: WriteOut = lambda _: None
) -> tuple[Program, Any]:
    """Trace `f` and return its program and the tree structure of its output.

    Args:
        f: any JAX function.
        *args: arrays or shapes to trace it with.
        inline: says of a `custom_jvp`, `custom_vjp` or remat call whether its body is inlined.
        write_out: gives the function that takes the place of a loop.
    """
    closed, shape = jax.make_jaxpr(entering.entered(f), return_shape=True)(*args)
    return _flatten(closed.jaxpr, closed.consts, inline, write_out), jax.tree.structure(shape)


def bodies(equation: Equation, inline: Inline) -> list[Program]:
    """Return the programs that an equation runs: one of a scan or a remat, one of each branch."""
    return [_flatten(*_opened(b), inline) for b in _bodies(equation.eqn)]


def functions(equation: Equation) -> list[Callable[..., Sequence[Any]]]:
    """Return the programs that an equation runs, as functions."""
    return [functools.partial(eval_jaxpr, *_opened(b)) for b in _bodies(equation.eqn)]


def _flatten(
    jaxpr: Jaxpr, consts: Sequence[Any], inline: Inline, write_out: WriteOut = lambda _: None
) -> Program:
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

    def with_constants(jaxpr: Jaxpr, consts: Sequence[Any], atoms: Iterable[Atom]) -> dict:
        known = {v: constant(v, c) for v, c in zip(jaxpr.constvars, consts, strict=True)}
        return dict(zip(jaxpr.invars, atoms, strict=True)) | known

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
            e = Equation(eqn)
            default = _default_branch(eqn)
            written = write_out(e) if e.row.call is Call.LOOP and default is None else None
            kept = e.row.call in (None, Call.LOOP) or (
                e.row.call is not Call.INLINE and not inline(e)
            )
            if written is not None:
                values = [getattr(v, "val", v.aval) for v in eqn.invars]
                places = [i for i, a in enumerate(inputs) if not isinstance(a, Literal)]
                given = [values[i] for i in places]
                closed = jax.make_jaxpr(restrict(written, values, places))(*given)
                known = with_constants(closed.jaxpr, closed.consts, (inputs[i] for i in places))
                outputs = visit(closed.jaxpr, known, calls, inner, origin)
            elif default is None and kept:
                outputs = tuple(map(number, eqn.outvars))
                equations.append(Equation(eqn, inputs, outputs, _path(inner), calls, stack, origin))
            else:
                body, body_consts = _opened(_bodies(eqn)[default or 0])
                arguments = inputs if default is None else inputs[1:]
                library = origin or (eqn if _is_framework(_defined_in(body)) else None)
                outputs = visit(
                    body,
                    with_constants(body, body_consts, arguments),
                    (*calls, (next(serials), e.called)),
                    inner,
                    library,
                )
            env |= dict(zip(eqn.outvars, outputs, strict=True))
        return list(map(atom, jaxpr.outvars))

    invars = tuple(map(number, jaxpr.invars))
    env = with_constants(jaxpr, consts, invars)
    outputs = tuple(visit(jaxpr, env, (), source_info_util.new_name_stack(), None))
    return Program(tuple(equations), invars, outputs, constants, avals)


def walk(
    equations: Iterable[Equation],
    env: Mapping[int, V],
    through: Callable[[Equation, list[V]], Sequence[V]],
    literal: Callable[[Any], V] = lambda value: value,
) -> dict[int, V]:
    """Carry something along with every value of a program: a sign, a degree, a change.

    Args:
        equations: to follow, in order.
        env: what is carried by the values that enter.
        through: an equation and what its inputs carry to what its outputs carry.
        literal: what a constant that is written into the program carries.

    Returns:
        `env`, with what is carried by the outputs of the equations.
    """
    env = dict(env)
    for e in equations:
        carried = [env[a] if isinstance(a, int) else literal(a.val) for a in e.inputs]
        env.update(zip(e.outputs, through(e, carried), strict=True))
    return env


def depending(equations: Iterable[Equation], values: Iterable[int]) -> set[int]:
    """Return some values, and all that equations make of them."""
    found = set(values)
    for e in equations:
        if any(isinstance(a, int) and a in found for a in e.inputs):
            found.update(e.outputs)
    return found


def restrict(run: Callable[..., V], values: Sequence[Any], places: Sequence[int]) -> Callable:
    """Return a function of its arguments at some places alone, the others fixed at values."""

    def restricted(*changed: Any) -> V:
        return run(*(dict(enumerate(values)) | dict(zip(places, changed, strict=True))).values())

    return restricted


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


def needed(program: Program) -> Program:
    """Return a program without the equations that its outputs do not need."""
    needed = {a for a in program.outputs if isinstance(a, int)}
    equations = []
    for e in reversed(program.equations):
        if not needed.isdisjoint(e.outputs) and not set(e.outputs) & set(program.inputs):
            equations.append(e)
            needed.update(a for a in e.inputs if isinstance(a, int))
    return program._replace(equations=tuple(reversed(equations)))


def step(equation: Equation) -> Step:
    """Return the step that runs one equation as it stands."""
    return Step(functools.partial(apply, equation), equation.inputs, equation.outputs)


def apply(equation: Equation, *values: Any) -> Sequence[Any]:
    """Run one equation on values of its inputs, under its own name and source line."""
    eqn = equation.eqn.replace(source_info=equation.info)
    known = {v: x for v, x in zip(eqn.invars, values, strict=True) if not isinstance(v, Literal)}
    jaxpr = _empty().replace(
        invars=list(known), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects
    )
    full = source_info_util.current_name_stack() + equation.stack
    with source_info_util.user_context(None, name_stack=full):
        return eval_jaxpr(jaxpr, (), *known.values())


def named(equation: Equation, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return `run` with everything in it named and placed as the equation was."""
    info = equation.info

    def inside(*values: Any) -> Any:
        stack = source_info_util.current_name_stack() + equation.stack + info.name_stack
        with source_info_util.user_context(info.traceback, name_stack=stack):
            return run(*values)

    return inside


def inner_primitives(equation: Equation) -> set[str]:
    """Return the names of the primitives that an equation runs: its own, or those of its body."""
    return _inner_primitives(equation.eqn)


def _inner_primitives(eqn: JaxprEqn) -> set[str]:
    e = Equation(eqn)
    if primitives.registered(e.called):
        return {e.called}
    if e.row.call is None:
        return set() if e.primitive == "platform_index" else {e.primitive}
    default = _default_branch(eqn)
    found = _bodies(eqn) if default is None else [_bodies(eqn)[default]]
    return {p for b in found for e in _opened(b)[0].eqns for p in _inner_primitives(e)}


@functools.cache
def _empty() -> Jaxpr:
    return jax.make_jaxpr(lambda: ())().jaxpr


def _bodies(eqn: JaxprEqn) -> list[Any]:
    """Return the jaxprs among an equation's parameters, closed or not, in a fixed order."""
    found = []
    for key in sorted(eqn.params, key=lambda k: (k != "cond_jaxpr", k)):
        value = eqn.params[key]
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                found.append(item)
    return found


def _opened(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Return a jaxpr and its constants, whether it was closed or not."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _default_branch(eqn: JaxprEqn) -> int | None:
    """Return the number of the default of a `lax.platform_dependent`, or None.

    The default is what it means; other branches say the same in another way.
    """
    platforms = eqn.params.get("branches_platforms") or ()
    return platforms.index(None) if None in platforms else None


def _is_framework(file: str) -> bool:
    return any(part in file for part in _FRAMEWORKS)


def _defined_in(jaxpr: Jaxpr) -> str:
    """Return where the function that a jaxpr was traced from is defined."""
    return getattr(getattr(jaxpr, "debug_info", None), "func_src_info", None) or ""


def _path(stack: Any) -> str:
    """Return a name stack without the transformations in it: `jvp(vmap(a))/b` is `a/b`."""
    text = str(stack)
    while (shorter := _TRANSFORM.sub(r"\1", text)) != text:
        text = shorter
    return "/".join(p for p in text.split("/") if p and not p.startswith(_CLASS))
