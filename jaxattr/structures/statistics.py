"""Tell a power that serves to normalize or to pool from one that is an activation."""

from jaxattr.programs.dataflow import Flow
from jaxattr.programs.interpret import Equation, depending
from jaxattr.programs.primitives import Form, Kind


def normalizes(flow: Flow, value: int) -> bool:
    """Whether a lone power, exponential or logarithm makes a statistic, and no feature.

    Wherever it goes, it is summed and then meets a feature in a product or quotient, as in
    LayerNorm, or its sum has a root or a logarithm, as in a norm or a logsumexp; or it is divided
    by what is made of itself, as in a softmax. `relu(z) ** 2` before a layer is an activation.

    Args:
        flow: of the program.
        value: what the power makes.
    """
    equations, powers = flow.program.equations, _powers(flow)
    derived = depending(equations[flow.made[value] + 1 :], {value})
    stack, seen = [(value, False)], set[tuple[int, bool]]()
    while stack:
        v, summed = stack.pop()
        for i in flow.used[v]:
            if i == len(equations):
                return False
            e, others = equations[i], [a for a in flow.entries(i) if a != v]
            if others and (e.row.kind is Kind.PRODUCT or _is_layer(flow, e)):
                if summed or derived.issuperset(others):
                    continue
                return False
            if e.row.form is Form.POWER or (e.primitive == "div" and e.inputs[1] == v):
                if summed:
                    continue
                return False
            if not (
                summed or (_keeps(flow, e) and all(a in derived | powers.keys() for a in others))
            ):
                return False
            sums = summed or _sums(e) or any(powers.get(a, False) for a in others)
            reached = {(a, sums) for a in e.outputs if a in flow.active} - seen
            seen |= reached
            stack += [(a, s) for a, s in reached if flow.differentiable(a)]
    return True


def _powers(flow: Flow) -> dict[int, bool]:
    """Return the powers of a program and what is made of them linearly, and if it is summed."""
    found: dict[int, bool] = {}
    for i, e in enumerate(flow.program.equations):
        entries = flow.entries(i)
        squared = e.row.form is Form.SCALE and len(entries) == 1 and e.inputs[0] == e.inputs[1]
        if entries and (e.row.form is Form.POWER or squared):
            found |= dict.fromkeys(e.outputs, False)
        elif entries and _keeps(flow, e) and all(a in found for a in entries):
            sums = _sums(e) or any(found[a] for a in entries)
            found |= dict.fromkeys(e.outputs, sums)
    return found


def _sums(e: Equation) -> bool:
    return e.primitive.startswith(("reduce_", "cum")) or e.row.kind is Kind.AFFINE


def _keeps(flow: Flow, e: Equation) -> bool:
    """Whether what an equation makes of powers is still one, or a sum of them."""
    row = e.row
    linear = row.kind in (Kind.LINEAR, Kind.STRUCTURE, Kind.AFFINE) and not _is_layer(flow, e)
    chosen = (Form.SHIFT, Form.SCALE, Form.SELECT, Form.COMPARE, Form.LOGIC)
    return linear or row.form in chosen


def _is_layer(flow: Flow, e: Equation) -> bool:
    """Whether an equation is a product with weights, or with something else that depends on x."""
    literal = all(flow.is_literal(a) or a in flow.active for a in e.inputs)
    several = sum(isinstance(a, int) and a in flow.active for a in e.inputs) > 1
    return e.row.kind is Kind.AFFINE and (several or not literal)
