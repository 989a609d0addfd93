"""Fold what follows a convolution or dense layer, bias and BatchNorm, into one affine layer.

Along the data flow, whatever the order of declaration: a scale or shift by values free of x joins
the layer that feeds it, if nobody else sees what is between them; a reshape on the way does not
part them.
"""

from collections.abc import Sequence

from jaxattr.tracing.interpret import Program
from jaxattr.tracing.kinds import LAYERS, Kind, Operation, gathered


def fold(program: Program, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the operations with each layer and its scales and shifts made one.

    Args:
        program: the program that they are of.
        operations: all of its operations, in order.
    """
    users: dict[int, list[int]] = {}
    for i, o in enumerate(operations):
        for a in o.operands:
            users.setdefault(a, []).append(i)
    ends = {a for a in program.outputs if isinstance(a, int)}

    def next_of(o: Operation) -> int | None:
        """Return the only operation that sees the output of `o`."""
        (out, *more) = o.outputs
        seen = users.get(out, [])
        return seen[0] if len(seen) == 1 and not more and out not in ends else None

    chains: dict[int, list[int]] = {}  # by their last operation
    for i, o in enumerate(operations):
        if o.kind is not Kind.AFFINE or o.leader.primitive not in LAYERS:
            continue
        chain, between = [i], []
        j = next_of(o)
        while j is not None and operations[j].moving == 1:
            follower = operations[j]
            if follower.kind is Kind.AFFINE and follower.leader.primitive not in LAYERS:
                chain, between = [*chain, *between, j], []
            elif follower.kind is Kind.STRUCTURE:
                between.append(j)
            else:
                break
            j = next_of(follower)
        chains[chain[-1]] = chain
    inside = {i for chain in chains.values() for i in chain}
    folded = []
    for i, o in enumerate(operations):
        if i in chains:
            folded.append(_joined([operations[j] for j in chains[i]]))
        elif i not in inside:
            folded.append(o)
    return tuple(folded)


def _joined(parts: Sequence[Operation]) -> Operation:
    if len(parts) == 1:
        return parts[0]
    moving = {a for o in parts for a in o.operands[: o.moving]}
    equations = {e.outputs: e for o in parts for e in o.equations}  # a constant may be in several
    return gathered(Kind.AFFINE, list(equations.values()), moving, parts[-1].outputs)
