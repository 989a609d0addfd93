"""Where the tokens of a transformer are, and the grid that they are of."""

import math
from collections.abc import Mapping, Sequence

from jaxattr.programs.dataflow import Flow, passed
from jaxattr.programs.primitives import Kind
from jaxattr.structures.operations import Operation
from jaxattr.structures.roles import Role, Roles

TOKENS = (Role.BATCH, Role.TOKEN, Role.CHANNEL)


def last_tokens(flow: Flow, roles: Mapping[int, Roles], found: Sequence[Operation]) -> int | None:
    """Return the tokens that the last block sees or, where their mean is classified, makes.

    Args:
        flow: of a function of images.
        roles: what the axes of its values are.
        found: its operations.

    Returns:
        Of a network that ends in a mean over tokens the last sum, layer or activation before it. Of
        one whose last attention gathers what a class token is told, what enters that attention's
        layers: the tokens after the last block's first norm. None where there are no tokens.
    """
    mixing = [i for i, o in enumerate(found) if _mixes(o, roles)]
    if not mixing:
        return None
    before = found[: mixing[-1]]
    if found[mixing[-1]].kind is Kind.PRODUCT:
        before = [o for o in before if o.kind is Kind.AFFINE and o.layered]
        values = [o.operands[0] for o in before if _are_tokens(roles, o.operands[0])]
    else:
        kinds = (Kind.SUM, Kind.ACTIVATION)
        before = [o for o in before if o.kind in kinds or (o.kind is Kind.AFFINE and o.layered)]
        values = [o.outputs[0] for o in before if _are_tokens(roles, o.outputs[0])]
        every_path = passed(flow)
        values = [v for v in values if v in every_path] or values
    return values[-1] if values else None


def _mixes(o: Operation, roles: Mapping[int, Roles]) -> bool:
    """Whether an operation sums over tokens: a mean, or attention."""
    e = o.leader
    if o.kind is Kind.PRODUCT and e.primitive == "dot_general":
        summed, _ = e.params["dimension_numbers"]
        known = [(roles.get(a, ()), axes) for a, axes in zip(e.inputs, summed, strict=True)]  # type: ignore[arg-type]
    elif o.kind is Kind.LINEAR and e.primitive == "reduce_sum":
        known = [(roles.get(o.operands[0], ()), e.params["axes"])]
    else:
        return False
    return any(r[i] is Role.TOKEN for r, axes in known for i in axes if i < len(r))


def _are_tokens(roles: Mapping[int, Roles], v: int) -> bool:
    return set(roles.get(v, ())) >= set(TOKENS)


def grid_of(flow: Flow, roles: Mapping[int, Roles], cut: int) -> tuple[int, int] | None:
    """Return the rows and columns that the tokens of a value were made of, if that is known."""
    shape = flow.program.avals[cut].shape
    tokens = math.prod(n for n, r in zip(shape, roles[cut], strict=True) if r is Role.TOKEN)
    last = None
    for e in flow.program.equations[: flow.made[cut] + 1]:
        for v in e.outputs:
            known = roles.get(v, ())
            if Role.ROW in known and Role.COLUMN in known:
                size = flow.program.avals[v].shape
                grid = size[known.index(Role.ROW)], size[known.index(Role.COLUMN)]
                last = grid if math.prod(grid) <= tokens < 2 * math.prod(grid) else last
    return last
