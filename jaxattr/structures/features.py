"""Which value of a network is its last feature maps: the default layer of what explains a layer."""

import math
from collections.abc import Mapping

from jaxattr.programs import dataflow, interpret
from jaxattr.programs.dataflow import Flow
from jaxattr.programs.primitives import Call, Kind
from jaxattr.structures.folding import fold
from jaxattr.structures.operations import Operation, operations
from jaxattr.structures.roles import Roles, axes
from jaxattr.structures.tokens import last_tokens


def last_features(flow: Flow, roles: Mapping[int, Roles]) -> int:
    """Return the last value with batch, rows, columns and channels before the pooling head.

    It is the output of a convolution or dense layer, of an activation, a residual sum or a maxout,
    one that all paths from the image to the output pass if there is such a value.
    """
    every = fold(flow.program, operations(flow.program, flow.program.inputs))
    found = [o.outputs[0] for o in every if _is_feature(flow, o, roles)]
    last = max((flow.made[v] for v in found), default=0)
    for i, e in enumerate(flow.program.equations[last:], start=last):
        closed = e.row.call is Call.LOOP and flow.entries(i)
        if closed and "conv_general_dilated" in interpret.inner_primitives(e):
            raise ValueError(
                f"the last feature maps lie in the {e.primitive} at {e.source}, into which one "
                "cannot look: name a layer before it with layer=..."
            )
    tokens = last_tokens(flow, roles, every)
    if tokens is not None and all(flow.made[v] < flow.made[tokens] for v in found):
        return tokens
    if not found:
        raise ValueError(
            "the function has no layer of shape (batch, height, width, channels) with a spatial "
            "extent that comes from a convolution: name one with layer=..."
        )
    passed = dataflow.passed(flow)
    return ([v for v in found if v in passed] or found)[-1]


def _is_feature(flow: Flow, o: Operation, roles: Mapping[int, Roles]) -> bool:
    avals = flow.program.avals
    found = [
        (axes(roles.get(v, ())), avals[v].shape) for v in (*o.operands[: o.active], *o.outputs)
    ]
    known = [order and tuple(shape[i] for i in order) for order, shape in found]
    if known[-1] is None or not flow.differentiable(o.outputs[0]):
        return False
    if max(known[-1][1:3]) == 1 or math.prod(known[-1]) < math.prod(found[-1][1]):
        return False
    match o.kind:
        case Kind.AFFINE:
            return o.layered
        case Kind.ACTIVATION:  # powers and exponentials serve to pool
            return not all(dataflow.forms(e) <= dataflow.POWERS for e in o.equations)
        case Kind.SUM:
            return None not in known
        case Kind.MAX_POOL:  # the larger of two features, no pool
            return len(set(known)) == 1
    return False
