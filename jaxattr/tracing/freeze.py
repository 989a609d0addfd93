"""The piecewise-linear view of a function at one input."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.lowering import is_laid_out, pools
from jaxattr.programs import interpret
from jaxattr.programs.control_flow import written_out
from jaxattr.programs.dataflow import flow
from jaxattr.programs.degrees import homogeneous
from jaxattr.programs.interpret import needed
from jaxattr.programs.primitives import Kind
from jaxattr.structures.factors import HELD, Hold
from jaxattr.structures.operations import extremum
from jaxattr.tracing.local import Local, Rule, UnsupportedOperation, lowered_step, plain, refuse
from jaxattr.tracing.sites import Scope, Site, every, should_inline_remat, survey
from jaxattr.tracing.transform import Observed, Traced, trace
from jaxattr.types import Array


class Line(NamedTuple):
    """An activation at one input: `slope * z + offset`, elementwise; no offset if it is zero."""

    slope: Array
    offset: Array | None


class Frozen(NamedTuple):
    """A network with its gates, factors and pool selections fixed at one input `x0`.

    Attributes:
        lines: the activations, in the order in which they run.
        sites: where they stand.
        logits: `(x, masks=None, *, bias=True) -> f_x0(x)`: affine in `x`, multilinear in the
            masks, which multiply the output of each activation. Without `bias` every shift is left
            out, which leaves the part that is linear in `x`.
        under: `(rules) -> function of x`: `f` with its pools' selections fixed, and rules for its
            activations.
        secants: `(x1) -> multipliers`: for each activation `delta_out / delta_in` between `x0` and
            `x1`, its slope where `|delta_in| < 1e-6`.
    """

    lines: tuple[Line, ...]
    sites: tuple[Site, ...]
    logits: Callable[..., Array]
    under: Callable[[Mapping[str, Rule]], Callable[[Array], Array]]
    secants: Callable[[Array], list[Array]]


def freeze(
    f: Callable[[Array], Array], x: Array, *, hold: Hold = HELD, knot_spacing: float | None = None
) -> Frozen:
    """Fix the gates of `f`, the factors of its products and the choices of its max-pools at `x`.

    A network of ReLUs and max-pools is affine around `x`; this is that affine function, for any
    other input, and with masks behind its activations:

        h_l = m_l * (slope_l * (W_l h_{l-1} + b_l) + offset_l)

    with `slope = act'(z)` and `offset = act(z) - slope * z` at `x`. A smooth activation is replaced
    by its tangent. Of a product of two values that depend on `x` one is held at its value at `x`:
    the channel weights of squeeze and excitation, the sigmoid of a GLU, the deviation of a
    normalization, the softmax of attention. What it multiplies stays linear, also the mean that a
    normalization subtracts; the activations behind a factor have no mask. Which of two factors is
    held `jaxattr.structures.factors` says.

    Laws: with masks of one, `logits(x)` equals `f(x)`; `logits` is affine in its input, and
    multilinear in the masks. Where nothing is held its gradient is that of `f`; otherwise that of
    `f` with a `stop_gradient` on all that is held.

    Args:
        f: images to logits, of affine layers, activations, pools, sums and products.
        x: where.
        hold: what is held: of `"gate"`, `"norm"` and `"softmax"`; `"mean"`, the mean that a
            normalization subtracts; `"activation"`, the gate in a SiLU, GELU or any other
            activation that is 0 at 0, which is then `act(z) / z` times its input, without an
            offset. Names of layers or scopes say which side of a product is held where what made
            it does not tell.
        knot_spacing: of knots at its multiples, between which every activation is taken as
            straight, instead of by its tangent: a ReLU6 stays itself if 6 is a knot. Then all laws
            are those of the network of such activations, and that alone is what `logits` gives at
            `x`.

    Returns:
        The affine function, as a `Frozen`.

    Raises:
        UnsupportedOperation: if `f` multiplies two values of which none can be told to be the
            factor, ends in a softmax, or has activations inside a loop of unknown length or a
            `shard_map`: then there is no such view.
        ValueError: if `hold` names what `f` does not have, or `knot_spacing` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> frozen = freeze(lambda x: jax.nn.relu(x - 1), jnp.array([0.0, 3.0]))
        >>> frozen.logits(jnp.array([5.0, 5.0])), frozen.logits(jnp.array([5.0, 5.0]), bias=False)
        (Array([0., 4.], dtype=float32), Array([0., 5.], dtype=float32))
    """
    if knot_spacing is not None and not knot_spacing > 0:
        raise ValueError(f"knot_spacing is {knot_spacing}; expected a positive distance of knots")
    read = trace(f, x, inline=should_inline_remat, write_out=written_out, hold=hold)
    traced, held = _parted(read, x)
    refuse_loops(traced.scope)
    refused: dict[str, Rule] = dict.fromkeys((Kind.STATISTIC, Kind.UNKNOWN), refuse)
    refused |= {Kind.PRODUCT: undecided}
    act = plain if knot_spacing is None else partial(_straight, knot_spacing=knot_spacing)
    seen = traced.observe({"activation": act, "max_pool": plain, **refused}, x, *held)
    of = lambda kind: {p: o for p, o in seen.items() if o.local.site.kind is kind}
    gates = of(Kind.ACTIVATION)
    picks = {p: selection(o.local, *o.operands) for p, o in of(Kind.MAX_POOL).items()}
    lines = {p: _line(o, hold, knot_spacing) for p, o in gates.items()}
    order = list(lines)
    fixed: dict[str, Rule] = {"max_pool": lambda local: picks[local.site.position], **refused}
    unshifted: dict[str, Rule] = dict.fromkeys(
        (Kind.AFFINE, Kind.LINEAR, Kind.SUM), lambda local: local.linear
    )

    def logits(x: Array, masks: Sequence[Array] | None = None, *, bias: bool = True) -> Array:
        def line(local: Local) -> Callable[..., Array]:
            slope, offset = lines[local.site.position]
            mask = None if masks is None else masks[order.index(local.site.position)]

            def value(z: Array, *_: Any) -> Array:
                a = slope * z
                a = a + offset if bias and offset is not None else a
                return a if mask is None else mask * a

            return value

        rules = {"activation": line, **fixed} | ({} if bias else unshifted)
        return traced.run(rules, x, *held)

    def under(rules: Mapping[str, Rule]) -> Callable[[Array], Array]:
        return lambda x: traced.run({**fixed, **rules}, x, *held)

    def secants(x1: Array) -> list[Array]:
        others = traced.observe({"activation": plain, **refused}, x1, *held)
        return [_secant(o, others[p], lines[p].slope) for p, o in gates.items()]

    sites = tuple(o.local.site for o in gates.values())
    return Frozen(tuple(lines.values()), sites, logits, under, secants)


def _line(at: Observed, hold: Hold, knot_spacing: float | None) -> Line:
    slope, (z, *parameters), a = at.local.slope(*at.operands), at.operands, at.output
    if homogeneous(at.local.equations):
        return Line(slope, None)
    if knot_spacing is not None:
        return _chord(at.local, knot_spacing, *at.operands)
    if "activation" in hold:
        at_zero = at.local.value(jnp.zeros_like(z), *parameters)
        smooth = (z == 0) | (at_zero != 0)
        slope = jnp.where(smooth, slope, a / jnp.where(smooth, 1, z))
    return Line(slope, a - slope * z)


def _chord(local: Local, knot_spacing: float, z: Array, *parameters: Array) -> Line:
    low = jnp.floor(z / knot_spacing) * knot_spacing
    a, b = (local.value(knot, *parameters) for knot in (low, low + knot_spacing))
    slope = (b - a) / knot_spacing
    return Line(slope, a - slope * low)


def _straight(local: Local, *, knot_spacing: float) -> Callable[..., Array]:
    """Replace an activation by straight pieces; what is homogeneous has its kink at a knot."""

    def value(z: Array, *parameters: Array) -> Array:
        slope, offset = _chord(local, knot_spacing, z, *parameters)
        return slope * z + (0 if offset is None else offset)

    return plain(local) if homogeneous(local.equations) else value


def _secant(a: Observed, b: Observed, slope: Array) -> Array:
    change = b.operands[0] - a.operands[0]
    near = jnp.abs(change) < 1e-6
    return jnp.where(near, slope, (b.output - a.output) / jnp.where(near, 1, change))


def _parted(traced: Traced, x: Array) -> tuple[Traced, list[Array]]:
    """Return a function of x and of all that is held, and what is held at x."""
    program = traced.scope.program
    moving = flow(program, program.inputs).moving
    stops = [e for e in program.equations if e.primitive == "stop_gradient"]
    values = tuple(v for e in stops for v in e.outputs if v in moving)
    before = needed(program._replace(outputs=values))
    rest = needed(program._replace(inputs=(*program.inputs, *values)))
    held = interpret.evaluate(before, map(lowered_step, before.equations), *jax.tree.leaves(x))
    return traced._replace(scope=survey(rest, program.inputs)), held


def undecided(local: Local) -> Callable[..., Array]:
    """Refuse a product of which no factor is held."""
    raise UnsupportedOperation(
        f"{local.site.where}, multiplies two values that depend on the image, and what made them "
        "does not tell which is the factor: name a layer or jax.named_scope that makes it in "
        'hold=("gate", "norm", "softmax", name)'
    )


def refuse_loops(scope: Scope) -> None:
    """Raise `UnsupportedOperation` if something that is not affine stands in a loop."""
    nonlinear = (Kind.ACTIVATION, Kind.MAX_POOL, Kind.PRODUCT, Kind.STATISTIC)
    for loop in (p for p in scope.places if p.operation.kind is Kind.CONTROL):
        for place in (p for inner in loop.scopes for p in every(inner)):
            if place.site is not None and place.site.kind in nonlinear:
                raise UnsupportedOperation(
                    f"`{place.site.op}` at {place.site.source} stands in a "
                    f"{loop.operation.leader.primitive}, where its slope is another in every turn "
                    "or on every device: write out a loop of unknown or great length, and map the "
                    "method over devices rather than a part of the model"
                )


def selection(local: Local, *operands: Any) -> Callable[..., Array]:
    """Return the linear map that takes what a selection took of its operands, first tie first."""
    equation, (a, *_) = local.equations[-1], operands
    if equation.primitive in ("reduce_max", "reduce_min"):
        axes = equation.params["axes"]
        order = [*(i for i in range(a.ndim) if i not in axes), *axes]
        flat = lambda a: a.transpose(order).reshape(*local.site.shape, -1)
        best = flat(a).argmax(-1) if equation.primitive == "reduce_max" else flat(a).argmin(-1)
        winner = jax.nn.one_hot(best, flat(a).shape[-1], dtype=a.dtype)
        return lambda a: (flat(a) * winner).sum(-1)
    pooled = equation.primitive == "reduce_window_max" and not is_laid_out(a)
    if pooled and (window := pools.window_of(equation.params, a.shape)) is not None:
        index, pick = pools.winners(a, window), pools.picking(window)
        return lambda a: pick(index, a)
    if extremum(local.equations):
        first = a == local.value(*operands)
        return lambda a, b: jnp.where(first, a, b)
    moving = [i for i in range(local.active) if jnp.issubdtype(operands[i].dtype, jnp.inexact)]

    def value(*moved: Array) -> Array:
        full = dict(enumerate(operands)) | dict(zip(moving, moved, strict=True))
        return local.value(*full.values())

    _, pick = jax.linearize(value, *(operands[i] for i in moving))
    return lambda *operands: pick(*(operands[i] for i in moving))
