"""What is known of every JAX primitive: one row each, and `register` for a user's own."""

from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Kind(StrEnum):
    """What an operation is to a rule."""

    AFFINE = "affine"  # convolution, dense layer, scale and shift, by values that x has no part in
    ACTIVATION = "activation"  # a one-input elementwise non-linearity
    MAX_POOL = "max_pool"
    LINEAR = "linear"  # linear without weights: sums, average pools, padding, resizing
    SUM = "sum"  # of values that all depend on x; concatenation
    PRODUCT = "product"  # of values that all depend on x: gates, attention
    STATISTIC = "statistic"  # what a normalization or softmax computes to divide by
    STRUCTURE = "structure"  # reshape, transpose, slice, broadcast
    CONTROL = "control"  # scan, while, cond, remat: descend
    UNKNOWN = "unknown"  # depends on x, and nothing above
    INACTIVE = "inactive"  # does not depend on x, or carries no gradient


class Form(StrEnum):
    """How an elementwise primitive depends on its operands."""

    SHIFT = "shift"  # affine in all of them together
    SCALE = "scale"  # affine in each of them, linear in the first
    BOUND = "bound"  # the larger or the smaller of two
    CORNER = "corner"  # piecewise linear in one
    POWER = "power"  # powers, roots, exponentials, logarithms: what normalizations are made of
    CURVE = "curve"  # any other smooth function
    STEP = "step"  # constant nearly everywhere
    COMPARE = "compare"  # an inequality
    SELECT = "select"  # one of several by a condition
    LOGIC = "logic"  # of conditions, and tests for equality


class Sign(StrEnum):
    """When a result is never negative."""

    ALWAYS = "always"
    ALL = "all"  # if no operand is
    ANY = "any"  # if some operand is not


class Call(StrEnum):
    """How a primitive that runs a program of its own is read."""

    INLINE = "inline"
    DERIVATIVE = "derivative"  # it carries its own: kept whole, or inlined
    REMAT = "remat"  # computed again in the backward pass: kept whole, or inlined
    LOOP = "loop"  # scan, while, cond


class Row(NamedTuple):
    """What is known of a primitive, or of a function with a derivative of its own.

    Attributes:
        kind: of an equation with one operand that depends on x, where it is not part of an
            activation. Something linear in several of them is a sum.
        form: if it is elementwise.
        sign: when its result is never negative.
        call: if it runs a program of its own.
        places: whether it puts its operands beside each other, so that no two entries meet.
    """

    kind: Kind = Kind.UNKNOWN
    form: Form | None = None
    sign: Sign | None = None
    call: Call | None = None
    places: bool = False


R: TypeAlias = Row
_AFFINE, _LINEAR, _PRODUCT, _STRUCTURE = Kind.AFFINE, Kind.LINEAR, Kind.PRODUCT, Kind.STRUCTURE
_ALL, _ALWAYS = Sign.ALL, Sign.ALWAYS

TABLE: dict[str, Row] = {
    # layers
    "conv_general_dilated": R(_AFFINE),
    "dot_general": R(_AFFINE),
    "ragged_dot_general": R(_AFFINE),
    # linear without weights
    "reduce_sum": R(_LINEAR, sign=_ALL),
    "reduce_window_sum": R(_LINEAR, sign=_ALL),
    "cumsum": R(_LINEAR, sign=_ALL),
    "scatter-add": R(_LINEAR, sign=_ALL),
    "pad": R(_LINEAR, sign=_ALL, places=True),
    "concatenate": R(_LINEAR, sign=_ALL, places=True),
    "stack": R(_LINEAR, sign=_ALL, places=True),
    "scatter": R(_LINEAR, sign=_ALL, places=True),
    "dynamic_update_slice": R(_LINEAR, sign=_ALL, places=True),
    # pools
    "reduce_max": R(Kind.MAX_POOL, sign=_ALL),
    "reduce_window_max": R(Kind.MAX_POOL, sign=_ALL),
    # structure: what only moves entries
    "reshape": R(_STRUCTURE, sign=_ALL),
    "transpose": R(_STRUCTURE, sign=_ALL),
    "slice": R(_STRUCTURE, sign=_ALL),
    "dynamic_slice": R(_STRUCTURE),
    "squeeze": R(_STRUCTURE, sign=_ALL),
    "broadcast_in_dim": R(_STRUCTURE, sign=_ALL),
    "rev": R(_STRUCTURE, sign=_ALL),
    "split": R(_STRUCTURE, sign=_ALL),
    "gather": R(_STRUCTURE),
    "tile": R(_STRUCTURE, sign=_ALL),
    "unstack": R(_STRUCTURE, sign=_ALL),
    "optimization_barrier": R(_STRUCTURE, sign=_ALL),
    "device_put": R(_STRUCTURE),
    "sharding_constraint": R(_STRUCTURE),
    "reshard": R(_STRUCTURE),
    "mesh_cast": R(_STRUCTURE),
    "pvary": R(_STRUCTURE),
    # elementwise, affine
    "add": R(_LINEAR, Form.SHIFT, _ALL),
    "add_any": R(_LINEAR, Form.SHIFT, _ALL),
    "sub": R(_LINEAR, Form.SHIFT),
    "neg": R(form=Form.SHIFT),
    "convert_element_type": R(form=Form.SHIFT, sign=_ALL),
    "reduce_precision": R(form=Form.SHIFT, sign=_ALL),
    "copy": R(form=Form.SHIFT, sign=_ALL),
    "name": R(form=Form.SHIFT, sign=_ALL),
    "mul": R(_PRODUCT, Form.SCALE, _ALL),
    "div": R(_PRODUCT, Form.SCALE, _ALL),
    # elementwise, piecewise
    "max": R(form=Form.BOUND, sign=Sign.ANY),
    "min": R(form=Form.BOUND, sign=_ALL),
    "clamp": R(form=Form.BOUND),
    "abs": R(form=Form.CORNER, sign=_ALWAYS),
    "select_n": R(_PRODUCT, Form.SELECT),
    "gt": R(form=Form.COMPARE),
    "ge": R(form=Form.COMPARE),
    "lt": R(form=Form.COMPARE),
    "le": R(form=Form.COMPARE),
    "eq": R(form=Form.LOGIC),
    "ne": R(form=Form.LOGIC),
    "is_finite": R(form=Form.LOGIC),
    "and": R(form=Form.LOGIC),
    "or": R(form=Form.LOGIC),
    "not": R(form=Form.LOGIC),
    "xor": R(form=Form.LOGIC),
    "sign": R(form=Form.STEP),
    "floor": R(form=Form.STEP),
    "ceil": R(form=Form.STEP),
    "round": R(form=Form.STEP),
    "rem": R(form=Form.STEP),
    "nextafter": R(form=Form.STEP),
    # elementwise, smooth
    "exp": R(form=Form.POWER, sign=_ALWAYS),
    "exp2": R(form=Form.POWER, sign=_ALWAYS),
    "log": R(form=Form.POWER),
    "log1p": R(form=Form.POWER),
    "sqrt": R(form=Form.POWER, sign=_ALL),
    "rsqrt": R(form=Form.POWER, sign=_ALL),
    "cbrt": R(form=Form.POWER, sign=_ALL),
    "square": R(form=Form.POWER, sign=_ALWAYS),
    "integer_pow": R(form=Form.POWER, sign=_ALL),
    "pow": R(form=Form.POWER, sign=_ALL),
    "logistic": R(form=Form.CURVE, sign=_ALWAYS),
    "tanh": R(form=Form.CURVE),
    "erf": R(form=Form.CURVE),
    "erfc": R(form=Form.CURVE, sign=_ALWAYS),
    "erf_inv": R(form=Form.CURVE),
    "expm1": R(form=Form.CURVE),
    "sin": R(form=Form.CURVE),
    "cos": R(form=Form.CURVE),
    "tan": R(form=Form.CURVE),
    "asin": R(form=Form.CURVE),
    "acos": R(form=Form.CURVE),
    "atan": R(form=Form.CURVE),
    "atan2": R(form=Form.CURVE),
    "sinh": R(form=Form.CURVE),
    "cosh": R(form=Form.CURVE, sign=_ALWAYS),
    "asinh": R(form=Form.CURVE),
    "acosh": R(form=Form.CURVE, sign=_ALWAYS),
    "atanh": R(form=Form.CURVE),
    "lgamma": R(form=Form.CURVE),
    "digamma": R(form=Form.CURVE),
    # programs inside
    "jit": R(call=Call.INLINE),
    "closed_call": R(call=Call.INLINE),
    "custom_jvp_call": R(call=Call.DERIVATIVE),
    "custom_vjp_call": R(call=Call.DERIVATIVE),
    "remat2": R(call=Call.REMAT),
    "scan": R(call=Call.LOOP),
    "while": R(call=Call.LOOP),
    "cond": R(call=Call.LOOP),
}
"""What a row says of a primitive that is not here: nothing."""

_REGISTERED: dict[str, Row] = {}
_NOTHING = Row()

KINDS = {
    "activation": Row(form=Form.CURVE),
    "linear": Row(Kind.LINEAR),
    "structure": Row(Kind.STRUCTURE),
}


def register(name: str, kind: str, *, nonnegative: bool = False) -> None:
    """Tell the reader what a primitive, or a function with a derivative of its own, does.

    For what it cannot know: a Pallas kernel, a foreign call, a primitive of your own, a
    `jax.custom_jvp` or `jax.custom_vjp` function whose body it should not look into. JAX's own
    derivative of it is used wherever a rule asks for one.

    Args:
        name: of the primitive, or of the function that the call runs.
        kind: `"activation"` for a function of one input, entry by entry; `"linear"` for a linear
            map without weights; `"structure"` for what only moves entries.
        nonnegative: whether its result is never negative.

    Raises:
        ValueError: if the kind is another one, or JAX's own primitive has that name already.

    Example:
        >>> import jax
        >>> @jax.custom_vjp
        ... def squash(x):
        ...     return x / jax.numpy.linalg.norm(x[None], axis=0)
        >>> squash.defvjp(lambda x: (squash(x), x), lambda x, g: (g * 0,))
        >>> register("squash", "activation")
        >>> import jaxattr
        >>> [site.kind.value for site in jaxattr.sites(squash, jax.numpy.ones(3))]
        ['activation']
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if name in TABLE:
        raise ValueError(f"{name!r} is a primitive of JAX that the reader knows already")
    row = KINDS[kind]
    _REGISTERED[name] = row._replace(sign=Sign.ALWAYS if nonnegative else row.sign)


def registered(name: str) -> bool:
    """Whether a user has told what `name` does."""
    return name in _REGISTERED


def row(name: str) -> Row:
    """Return what is known of a primitive or a registered function."""
    return _REGISTERED.get(name) or TABLE.get(name, _NOTHING)
