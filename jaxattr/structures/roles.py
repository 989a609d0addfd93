"""What the axes of a value are: batch, rows, columns, channels, whatever the layout in memory."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TypeAlias

from jaxattr.programs.dataflow import Flow, elementwise
from jaxattr.programs.interpret import Equation, walk
from jaxattr.programs.primitives import Kind


class Role(StrEnum):
    """What an axis is."""

    BATCH = "batch"
    ROW = "row"
    COLUMN = "column"
    CHANNEL = "channel"
    TOKEN = "token"  # rows and columns in one axis


Roles: TypeAlias = tuple[Role | None, ...]
"""One for each axis; None where it is something else, or not known."""

IMAGE = (Role.BATCH, Role.ROW, Role.COLUMN, Role.CHANNEL)


def roles(flow: Flow) -> dict[int, Roles]:
    """Return the roles of the axes of every value that depends on x, of images `(B, H, W, C)`."""
    program = flow.program

    def through(e: Equation, carried: Sequence[Roles | None]) -> list[Roles | None]:
        entries = [i for i, roles in enumerate(carried) if roles is not None]
        return [_through(e, entries, carried, a.shape) if entries else None for a in e.output_avals]

    ranks = {v: len(program.avals[v].shape) for v in program.inputs}
    start: dict[int, Roles | None] = dict.fromkeys(program.constants)
    for v, rank in ranks.items():
        known = IMAGE if rank == 4 else (Role.BATCH, *[None] * (rank - 1))[:rank]
        start[v] = known if v in flow.active else None
    found = walk(program.equations, start, through, lambda value: None)
    return {v: roles for v, roles in found.items() if roles is not None}


def axes(roles: Roles) -> tuple[int, int, int, int] | None:
    """Return where batch, rows, columns and channels are, or None if one of them is missing."""
    if any(roles.count(role) != 1 for role in IMAGE):
        return None
    batch, row, column, channel = map(roles.index, IMAGE)
    return batch, row, column, channel


def _through(
    e: Equation, entries: Sequence[int], carried: Sequence[Roles | None], shape: tuple[int, ...]
) -> Roles:
    """Return the roles of an output's axes."""
    active = [roles for roles in carried if roles is not None]
    first, before = active[0], e.input_avals[entries[0]].shape
    match e.primitive:
        case "conv_general_dilated" if entries == [0]:
            return _convolved(e, first)
        case "dot_general":
            return _contracted(e, carried)
        case "transpose":
            return tuple(first[i] for i in e.params["permutation"])
        case "broadcast_in_dim":
            out: list[Role | None] = [None] * len(shape)
            for role, n, axis in zip(first, before, e.params["broadcast_dimensions"], strict=True):
                out[axis] = role if n == shape[axis] else None
            return tuple(out)
        case "stack":
            return (*first[: e.params["axis"]], None, *first[e.params["axis"] :])
        case "unstack":
            return (*first[: e.params["axis"]], *first[e.params["axis"] + 1 :])
        case "squeeze":
            return tuple(r for i, r in enumerate(first) if i not in e.params["dimensions"])
        case "reshape":
            return _reshaped(first, before, shape)
        case name if "axes" in e.params and name.startswith(("reduce_", "arg")):
            return tuple(r for i, r in enumerate(first) if i not in e.params["axes"])
    alike = [roles for roles in active if len(roles) == len(shape)]
    if alike and (elementwise(e) or e.row.kind is Kind.LINEAR):
        return tuple(map(_any, zip(*alike, strict=True)))
    same = [r for i, r in zip(entries, active, strict=True) if e.input_avals[i].shape == shape]
    if same:
        return same[0]
    if len(before) == len(shape):  # slices and windows
        return first
    return (Role.BATCH, *[None] * len(shape))[: len(shape)]


def _any(roles: Sequence[Role | None]) -> Role | None:
    return next((role for role in roles if role is not None), None)


def _convolved(e: Equation, image: Roles) -> Roles:
    numbers = e.params["dimension_numbers"]
    out: list[Role | None] = [None] * len(image)
    out[numbers.out_spec[0]], out[numbers.out_spec[1]] = image[numbers.lhs_spec[0]], Role.CHANNEL
    default = (Role.ROW, Role.COLUMN) if len(image) == 4 else (Role.TOKEN,)
    places = zip(numbers.out_spec[2:], numbers.lhs_spec[2:], strict=True)
    for i, (to, of) in enumerate(places):
        out[to] = image[of] or default[min(i, len(default) - 1)]
    return tuple(out)


def _contracted(e: Equation, carried: Sequence[Roles | None]) -> Roles:
    """Return the roles of a product's axes: a weight's own axis takes the place of what it sums."""
    contracted, batch = e.params["dimension_numbers"]
    ranks = [len(a.shape) for a in e.input_avals]
    known = [r or (None,) * n for r, n in zip(carried, ranks, strict=True)]
    free = [
        [a for a in range(n) if a not in (*c, *b)]
        for n, c, b in zip(ranks, contracted, batch, strict=True)
    ]
    out = [_any((known[0][i], known[1][j])) for i, j in zip(*batch, strict=True)]
    for side in range(2):
        of_free = [known[side][a] for a in free[side]]
        if carried[side] is None and len(of_free) == 1:
            summed = [known[1 - side][a] for a in contracted[1 - side]]
            of_free = [Role.CHANNEL if Role.CHANNEL in summed else _merged(summed)]
        out += of_free
    return tuple(out)


def _reshaped(roles: Roles, before: Sequence[int], after: Sequence[int]) -> Roles:
    out: list[Role | None] = [None] * len(after)
    for old, new in _groups(before, after):
        if [before[i] for i in old] == [after[j] for j in new]:
            for i, j in zip(old, new, strict=True):
                out[j] = roles[i]
            continue
        olds = [i for i in old if before[i] > 1]
        news = [j for j in new if after[j] > 1]
        role = _merged([roles[i] for i in olds])
        if len(news) == 1:
            out[news[0]] = role
        elif len(news) == 2 and role is Role.TOKEN:
            out[news[0]], out[news[1]] = Role.ROW, Role.COLUMN
        elif news and role is not None:
            out[news[-1 if role is Role.CHANNEL else 0]] = role
    return tuple(out)


def _merged(roles: Sequence[Role | None]) -> Role | None:
    known = {role for role in roles if role is not None}
    if len(known) == 1:
        return known.pop()
    return Role.TOKEN if known == {Role.ROW, Role.COLUMN} else None


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the axes of both shapes in the smallest groups of one size."""
    i = j = 0
    while i < len(before) or j < len(after):
        old, new = [i] * (i < len(before)), [j] * (j < len(after))
        while (a := math.prod(before[k] for k in old)) != (b := math.prod(after[k] for k in new)):
            if a < b:
                old.append(i + len(old))
            else:
                new.append(j + len(new))
        i, j = i + len(old), j + len(new)
        yield old, new
