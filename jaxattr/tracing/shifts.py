"""What a function adds on its way: its biases, and the offsets of what bends, each as a term.

Around `x` every operation is a linear map of what enters, plus a shift: the bias of a layer with
its BatchNorm folded in, `a - slope * z` for an activation that does not scale with its input, such
as a ReLU6 or a SiLU, `-a b` for a product. A gradient passes the linear maps; the shifts are where
the rest of the output comes from.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.tracing import elementwise, homogeneity, interpret
from jaxattr.tracing.interpret import Atom, Equation
from jaxattr.tracing.kinds import LAYERS, Kind, Operation
from jaxattr.tracing.layers import channel_axis
from jaxattr.tracing.local import Local, Rule, UnsupportedOperation
from jaxattr.tracing.rewrite import run_scope
from jaxattr.tracing.sites import Scope, Site, every, opens_everything, survey
from jaxattr.types import Array


class Shift(NamedTuple):
    """An operation that adds something.

    Attributes:
        site: where it stands.
        layer: the equation that makes it a layer, or the last one of any other operation.
        channel_axis: of its output; the last where no convolution tells.
    """

    site: Site
    layer: Equation
    channel_axis: int


class Shifted(NamedTuple):
    """A function with its shifts made visible.

    Attributes:
        shifts: by module path, with the operation and its place behind it if that is not unique.
        output: `(x, grown) -> f(x)`, whose gradient with respect to `grown[name]` is the gradient
            at the output of the operation, times its shift, summed to the shape of `grown[name]`.
            The value does not depend on `grown`.
        activations: how many activations the function has.
    """

    shifts: dict[str, Shift]
    output: Callable[[Array, Mapping[str, Array]], Array]
    activations: int


def shifted(f: Callable[[Array], Array], x: Array, activation: Rule) -> Shifted:
    """Find all that `f` adds.

    Law: with an `activation` that passes the true gradient, the gradient times `x` and all terms
    add up to `f(x)`, for any `f` (Euler's theorem, operation by operation).

    Args:
        f: images to logits.
        x: the images, or their shape.
        activation: the backward rule for activations.

    Raises:
        UnsupportedOperation: if something is added where the first axis is not the batch.
    """
    program, tree = interpret.read(f, x, opens=opens_everything)
    scope = survey(program)
    found = dict(_shifts(scope))
    for shift, _ in found.values():
        _check_batch(shift.site, x.shape[0])
    paths = Counter(shift.site.name for shift, _ in found.values())
    names = {p: _name(shift.site, paths) for p, (shift, _) in found.items()}

    def output(x: Array, grown: Mapping[str, Array]) -> Array:
        def rule(local: Local) -> Callable[..., Array]:
            value = activation(local) if local.site.kind is Kind.ACTIVATION else local.value
            name = names.get(local.site.position, "")
            if name not in grown:
                return value
            shift = _shift(local, found[local.site.position][1])
            return lambda *operands: _term(value(*operands), grown[name], shift(*operands))

        kinds = (Kind.AFFINE, Kind.LINEAR, Kind.SUM, Kind.ACTIVATION, Kind.PRODUCT, Kind.STATISTIC)
        outputs = run_scope(scope, dict.fromkeys(kinds, rule), *jax.tree.leaves(x))
        return jax.tree.unflatten(tree, outputs)

    activations = sum(p.operation.kind is Kind.ACTIVATION for p in every(scope))
    return Shifted({names[p]: shift for p, (shift, _) in found.items()}, output, activations)


def _shifts(scope: Scope) -> Iterator[tuple[int, tuple[Shift, Operation]]]:
    """Yield every place of a scope and of those inside it that adds something."""
    flow = elementwise.flow(scope.program, scope.program.inputs)
    for place in scope.places:
        for inner in place.scopes:
            yield from _shifts(inner)
        operation, site = place.operation, place.site
        if site is not None and _adds(operation):
            axis = channel_axis(flow, operation.outputs[0]) if len(site.shape) == 4 else None
            last = len(site.shape) - 1
            yield (
                site.position,
                (Shift(site, operation.leader, last if axis is None else axis), operation),
            )


def _check_batch(site: Site, batch: int) -> None:
    if site.shape[:1] != (batch,):
        raise UnsupportedOperation(
            f"`{site.op}` at {site.source} gives an array of shape {site.shape}, whose first axis "
            f"is not the batch of {batch}: what it adds cannot be told apart image by image"
        )


def _name(site: Site, paths: Counter) -> str:
    if site.name and paths[site.name] == 1:
        return site.name
    return f"{site.name}/{site.op}[{site.position}]".lstrip("/")


def _adds(operation: Operation) -> bool:
    """Whether an operation is more than a linear map of what enters, around any point."""
    if operation.kind is Kind.ACTIVATION:
        return not homogeneity.homogeneous(operation.equations)
    if operation.kind in (Kind.PRODUCT, Kind.STATISTIC):
        return True
    moves, zeros = set(operation.operands[: operation.moving]), set[int]()
    for e in operation.equations:
        moving = [isinstance(a, int) and a in moves for a in e.inputs]
        zero = [_zero(a, zeros) for a in e.inputs]
        if all(zero):
            zeros.update(e.outputs)
        if any(moving):
            moves.update(e.outputs)
            quiet = all(m or z for m, z in zip(moving, zero, strict=True))
            if e.primitive in _ADDING and not quiet:
                return True
    return False


_ADDING = {"add", "sub", "add_any", "pad", "concatenate", "select_n", "dynamic_update_slice"}
_ADDING |= {"scatter-add", "scatter_add"}


def _zero(a: Atom, zeros: set[int]) -> bool:
    return a in zeros if isinstance(a, int) else not np.any(a.val)


def _shift(local: Local, operation: Operation) -> Callable[..., Array]:
    """Return the function that computes what an operation adds."""
    match local.site.kind:
        case Kind.ACTIVATION:
            return partial(_offset, local)
        case Kind.PRODUCT | Kind.STATISTIC:
            return partial(_remainder, local)
        case _:
            return partial(_constant, operation)


def _offset(local: Local, z: Array, *parameters: Any) -> Array:
    return local.value(z, *parameters) - local.slope(z, *parameters) * z


def _remainder(local: Local, *operands: Any) -> Array:
    """Return what is left of a product or quotient after its linear part, `-a b` for `a b`."""
    moving = [i for i in range(local.moving) if jnp.issubdtype(operands[i].dtype, jnp.inexact)]

    def value(*moved: Any) -> Array:
        full = dict(enumerate(operands)) | dict(zip(moving, moved, strict=True))
        return local.value(*full.values())

    changes = tuple(operands[i] for i in moving)
    a, linear = jax.jvp(value, changes, changes)
    return a - linear


def _constant(operation: Operation, *operands: Any) -> Array:
    """Return what an affine operation makes of zero; a layer itself need not run for that."""
    env = dict(zip(operation.operands, operands, strict=True))
    moves = set(operation.operands[: operation.moving])
    env |= {a: jnp.zeros_like(env[a]) for a in moves}
    for e in operation.equations:
        moving = any(isinstance(a, int) and a in moves for a in e.inputs)
        moves.update(e.outputs if moving else ())
        if moving and e.primitive in LAYERS:
            avals: list[Any] = [v.aval for v in e.eqn.outvars]
            outputs = [jnp.zeros(a.shape, a.dtype) for a in avals]
        else:
            outputs = interpret.apply(
                e, *(env[a] if isinstance(a, int) else a.val for a in e.inputs)
            )
        env.update(zip(e.outputs, outputs, strict=True))
    return env[operation.outputs[0]]


def _term(value: Array, factor: Array, shift: Array) -> Array:
    return _grown(value, jnp.broadcast_to(factor, value.shape), shift)


@jax.custom_vjp
def _grown(value: Array, factor: Array, shift: Array) -> Array:
    """Return `value + factor * shift` for a factor of zero."""
    return value


_grown.defvjp(lambda value, factor, shift: (value, shift), lambda shift, g: (g, g * shift, None))
