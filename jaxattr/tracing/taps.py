"""Name a place in a function, read its value, and run what comes before or after it."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax

from jaxattr.frameworks.entering import unjitted
from jaxattr.frameworks.modules import Path, known_by
from jaxattr.programs import dataflow, interpret
from jaxattr.programs.control_flow import has_bodies, written_out
from jaxattr.programs.dataflow import Flow
from jaxattr.programs.interpret import Equation, Program
from jaxattr.structures.features import last_features
from jaxattr.structures.roles import Role, Roles, axes, roles
from jaxattr.structures.tokens import TOKENS, grid_of
from jaxattr.tracing.local import Rule
from jaxattr.tracing.sites import scope_ends_with, should_inline, should_inline_remat, survey
from jaxattr.tracing.transform import Traced
from jaxattr.types import Layer

Known: TypeAlias = str | int | Path
"""What a layer is found by: a name, a position in `sites`, or the path of a module."""


class Split(NamedTuple):
    """A function cut at a layer.

    Attributes:
        before: `x -> value` at the layer.
        after: `(value, x) -> output`; `x` serves what bypasses the layer.
        roles: what the axes of the value are.
        layer: its name, position or module path, if it has been given.
        grid: rows and columns of its tokens, if it has tokens and that is known.
        first: what `before` runs, to be run under other rules.
    """

    before: Callable[[Any], jax.Array]
    after: Callable[[jax.Array, Any], Any]
    roles: Roles
    layer: Known | None
    grid: tuple[int, int] | None
    first: Traced

    @property
    def channel_axis(self) -> int:
        """Which axis of the value holds channels; the last, where that is not known."""
        return self.roles.index(Role.CHANNEL) if Role.CHANNEL in self.roles else -1

    def channels_last(self, value: jax.Array) -> jax.Array:
        """Return a value of the layer, or its gradient, as `(B, h, w, C)`.

        Tokens become their grid; those before it, such as a class token, are left out.

        Raises:
            ValueError: if it has other axes.
        """
        if value.ndim == 3 and (self.grid is not None or Role.TOKEN in self.roles):
            return self._drawn(value)
        order = axes(self.roles) or ((0, 1, 2, 3) if value.ndim == 4 else None)
        if order is None:
            raise ValueError(
                f"layer {self.layer!r} has shape {value.shape}; expected (batch, height, width, "
                "channels)"
            )
        others = [i for i in range(value.ndim) if i not in order]
        return value.transpose(*order, *others).reshape([value.shape[i] for i in order])

    def _drawn(self, value: jax.Array) -> jax.Array:
        known = all(self.roles.count(role) == 1 for role in TOKENS)
        value = value.transpose([self.roles.index(role) for role in TOKENS]) if known else value
        rows, columns = self.grid or (0, 0)
        if not 0 < rows * columns <= value.shape[1]:
            raise ValueError(
                f"the layer has {value.shape[1]} tokens, which are no grid of {self.grid} with "
                "others before it: say by grid=(rows, columns) how they lie"
                if self.grid
                else f"how the {value.shape[1]} tokens of the layer lie is not known: say it by "
                "grid=(rows, columns)"
            )
        return value[:, -rows * columns :].reshape(len(value), rows, columns, -1)


class Taps(NamedTuple):
    """The output of a function, and values met on the way."""

    output: Any
    values: dict[str | int, jax.Array]


def split(
    f: Callable[..., Any],
    x: Any,
    *,
    layer: Layer | None = None,
    rules: Mapping[str, Rule] | None = None,
    grid: tuple[int, int] | None = None,
) -> Split:
    """Cut `f` at a layer, each half read, lowered and under `rules` if there are any.

    Law: `after(before(x), x)` equals `f(x)`.

    Args:
        f: a function of one argument.
        x: that argument, or its shape.
        layer: its name, position or module (`jaxattr.types.Layer`); the last value computed under
            a name is meant. By default the last layer with a spatial extent
            (`structures.features.last_features`): of a VGG the last convolution's ReLU, of a ResNet
            the last residual sum's; of a transformer the tokens of the last block
            (`structures.tokens.last_tokens`).
        grid: rows and columns of the layer's tokens, where they cannot be told.
        rules: rules for the backward pass, as for `with_rules`.

    Raises:
        ValueError: if the layer is unknown (the known ones are listed), ambiguous, or in a loop
            of unknown length.
    """
    layer = layer if layer is None else known_by(f, layer)
    program, tree, flow = _read(f, x, layer)
    known = roles(flow)
    cut = last_features(flow, known) if layer is None else _find(flow, layer)
    of_cut = known.get(cut, ())
    if grid is None and Role.TOKEN in of_cut:
        grid = grid_of(flow, known, cut)
    before = interpret.needed(program._replace(outputs=(cut,)))
    after = interpret.needed(program._replace(inputs=(cut, *program.inputs)))
    first = Traced(survey(before), jax.tree.structure(0))
    second = Traced(survey(after, active=(cut,)), tree)
    run_first, run_second = (partial(half.run, rules or {}) for half in (first, second))
    return Split(run_first, run_second, of_cut, layer, grid, first)


def taps(f: Callable[..., Any], layers: Sequence[str | int]) -> Callable[..., Taps]:
    """Return a function that also returns values inside `f`, and can add to them.

    Adding zeros and differentiating with respect to them gives the gradient at each layer.

    Args:
        f: a function of one argument.
        layers: names or positions, as for `split`.

    Returns:
        `tapped(x, add={}) -> Taps(output, values)`, where `add` and `values` are keyed by layer and
        `values` is read after the addition.

    Raises:
        ValueError: as `split` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("double")
        ... def double(x):
        ...     return 2 * x
        >>> taps(lambda x: double(x) + 1, ["double"])(jnp.ones(2)).values
        {'double': Array([2., 2.], dtype=float32)}
    """

    def tapped(x: Any, add: Mapping[str | int, jax.Array] | None = None) -> Taps:
        program, tree, flow = _read(f, x, *layers)
        cuts = {layer: _find(flow, layer) for layer in layers}
        if unknown := set(add or ()) - set(cuts):
            raise ValueError(f"cannot add at {sorted(unknown)}: the tapped layers are {list(cuts)}")
        values: dict[int, jax.Array] = {}
        offsets = {cuts[layer]: a for layer, a in (add or {}).items()}

        def tap(e: Equation) -> interpret.Step:
            def read(*operands: Any) -> Sequence[Any]:
                outputs = list(interpret.apply(e, *operands))
                for i, v in enumerate(e.outputs):
                    if v in offsets:
                        outputs[i] = outputs[i] + offsets[v]
                    values[v] = outputs[i]
                return outputs

            return interpret.Step(read, e.inputs, e.outputs)

        steps = [
            tap(e) if not set(e.outputs).isdisjoint(cuts.values()) else interpret.step(e)
            for e in program.equations
        ]
        outputs = interpret.evaluate(program, steps, *jax.tree.leaves(x))
        return Taps(jax.tree.unflatten(tree, outputs), {k: values[v] for k, v in cuts.items()})

    return tapped


def _read(f: Callable[..., Any], x: Any, *layers: Known | None) -> tuple[Program, Any, Flow]:
    """Read `f`, looking inside a remat or a loop only if a layer is not found outside.

    A function under `jit` may have been traced before, when its modules had no names. The default
    layer may be anywhere, and a position is one of those that `sites` lists.
    """
    if any(isinstance(layer, int) for layer in layers):
        f = unjitted(f)
    outside = [(f, should_inline, lambda _: None), (f, should_inline_remat, lambda _: None)]
    inside = [(g, should_inline_remat, written_out) for g in (f, unjitted(f))]
    attempts = [*([] if None in layers else outside), *inside]
    while True:
        (g, inline, write_out), *attempts = attempts
        program, tree = interpret.read(g, x, inline=inline, write_out=write_out)
        flow = dataflow.flow(program, program.inputs)
        if not attempts or all(map(partial(_has, flow), layers)):
            return program, tree, flow


def _has(flow: Flow, layer: Known | None) -> bool:
    return layer is None or isinstance(layer, int) or bool(_matches(flow, layer))


def _at(program: Program, position: int) -> int:
    """Return what the place at a position of `sites` makes."""
    scope = survey(program)
    found = {p.site.position: p.operation.outputs[0] for p in scope.places if p.site is not None}
    if position in found:
        return found[position]
    if position in range(len(scope.sites)):
        where = scope.sites[position].where
        raise ValueError(f"layer {position} is {where}, inside a loop: give another, or a name")
    raise ValueError(
        f"layer is {position}; the positions in jaxattr.sites(f, x) are 0 to {len(scope.sites) - 1}"
    )


def _find(flow: Flow, layer: Known) -> int:
    """Return the last value computed under a name, or the value at a position."""
    if isinstance(layer, int):
        return _at(flow.program, layer)
    matches = _matches(flow, layer)
    if not matches:
        raise ValueError(_unknown(flow, layer))
    depth = min(map(len, matches))
    shallow = sorted("/".join(m) for m in matches if len(m) == depth)
    if len(shallow) > 1:
        raise ValueError(f"layer {layer!r} is ambiguous: it could be {', '.join(shallow)}")
    return matches[tuple(shallow[0].split("/"))]


def _matches(flow: Flow, layer: str | Path) -> dict[Path, int]:
    """Return the last value of every scope whose path ends in the layer's name, or leads to it."""
    found = {}
    for path, value in _named(flow):
        for n in range(1, len(path) + 1):
            if _is_of(path[:n], layer):
                found[path[:n]] = value
    return found


def _is_of(scope: Path, layer: str | Path) -> bool:
    if isinstance(layer, str):
        return scope_ends_with(scope, layer)
    parts = iter(scope)  # a module's scopes may have those of the user between them
    return scope[-1] == layer[-1] and all(name in parts for name in layer)


def _named(flow: Flow) -> Iterator[tuple[Path, int]]:
    for e in flow.program.equations:
        values = [v for v in e.outputs if v in flow.active and flow.differentiable(v)]
        if values and e.primitive == "name":
            yield (e.params["name"],), values[-1]
        if values and e.path:
            yield tuple(e.path.split("/")), values[-1]


def _inside(flow: Flow) -> Iterator[Flow]:
    """Yield the programs inside the loops of a program."""
    for e in filter(has_bodies, flow.program.equations):
        for program in interpret.bodies(e, should_inline):
            inner = dataflow.flow(program, program.inputs)
            yield inner
            yield from _inside(inner)


def _unknown(flow: Flow, layer: str | Path) -> str:
    paths = dict.fromkeys(path[:n] for path, _ in _named(flow) for n in range(1, len(path) + 1))
    known = ["/".join(p) for p in paths]
    looped = any(_matches(inner, layer) for inner in _inside(flow))
    layer = layer if isinstance(layer, str) else "/".join(layer)
    if looped:
        return f"layer {layer!r} is inside a loop of unknown or great length, or a shard_map"
    if not known:
        return (
            f"layer {layer!r} is unknown: nothing in the function has a name; put the layer under "
            "jax.named_scope or tag its value with jax.ad_checkpoint.checkpoint_name; modules that "
            "were under jax.jit when they were first called have no names: call them without it"
        )
    near = difflib.get_close_matches(layer, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"layer {layer!r} is unknown; {hint}The known layers are {', '.join(known)}"
