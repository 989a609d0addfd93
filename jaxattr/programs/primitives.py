"""What is known of every JAX primitive: one row each, and `register` for a user's own."""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What an operation is to a rule."""

    AFFINE = "affine"  # convolution, dense layer, scale and shift, by values that x has no part in
    ACTIVATION = "activation"  # a one-input elementwise non-linearity
    MAX_POOL = "max_pool"  # and other selections: the larger of two features, sorted values
    LINEAR = "linear"  # linear without weights: sums, average pools, padding, resizing
    SUM = "sum"  # of values that all depend on x; concatenation
    PRODUCT = "product"  # of values that all depend on x: gates, attention
    SOFTMAX = "softmax"  # as one, where it is asked for as such
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
    LOOP = "loop"  # scan, while, cond, shard_map


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


_GROUPS = {
    # layers
    "conv_general_dilated dot_general ragged_dot_general": Row(Kind.AFFINE),
    # linear without weights
    "reduce_sum reduce_window_sum cumsum scatter-add": Row(Kind.LINEAR, sign=Sign.ALL),
    "fft psum psum_invariant reduce_scatter": Row(Kind.LINEAR),
    "pad concatenate stack scatter dynamic_update_slice": Row(
        Kind.LINEAR, sign=Sign.ALL, places=True
    ),
    # selections
    "reduce_max reduce_min reduce_window_max reduce_window_min cummax cummin sort top_k": Row(
        Kind.MAX_POOL, sign=Sign.ALL
    ),
    # structure: what only moves entries
    "reshape transpose slice squeeze broadcast_in_dim rev split tile unstack"
    " optimization_barrier": Row(Kind.STRUCTURE, sign=Sign.ALL),
    "all_gather all_to_all ppermute": Row(Kind.STRUCTURE),
    "dynamic_slice gather device_put sharding_constraint reshard mesh_cast pvary": Row(
        Kind.STRUCTURE
    ),
    # elementwise, affine
    "add add_any": Row(Kind.LINEAR, Form.SHIFT, Sign.ALL),
    "sub complex real imag conj": Row(Kind.LINEAR, Form.SHIFT),
    "neg": Row(form=Form.SHIFT),
    "convert_element_type reduce_precision copy name": Row(form=Form.SHIFT, sign=Sign.ALL),
    "mul div": Row(Kind.PRODUCT, Form.SCALE, Sign.ALL),
    # elementwise, piecewise
    "max": Row(Kind.MAX_POOL, Form.BOUND, Sign.ANY),
    "min": Row(Kind.MAX_POOL, Form.BOUND, Sign.ALL),
    "clamp": Row(form=Form.BOUND),
    "abs": Row(form=Form.CORNER, sign=Sign.ALWAYS),
    "select_n": Row(Kind.PRODUCT, Form.SELECT),
    "gt ge lt le": Row(form=Form.COMPARE),
    "eq ne is_finite and or not xor": Row(form=Form.LOGIC),
    "sign floor ceil round rem nextafter": Row(form=Form.STEP),
    # elementwise, smooth
    "exp exp2 square": Row(form=Form.POWER, sign=Sign.ALWAYS),
    "sqrt rsqrt cbrt integer_pow pow": Row(form=Form.POWER, sign=Sign.ALL),
    "log log1p": Row(form=Form.POWER),
    "logistic erfc cosh acosh": Row(form=Form.CURVE, sign=Sign.ALWAYS),
    "tanh erf erf_inv expm1 sin cos tan asin acos atan atan2 sinh asinh atanh lgamma digamma": Row(
        form=Form.CURVE
    ),
    # programs inside
    "jit closed_call spelled": Row(call=Call.INLINE),
    "custom_jvp_call custom_vjp_call": Row(call=Call.DERIVATIVE),
    "remat2": Row(call=Call.REMAT),
    "scan while cond shard_map": Row(call=Call.LOOP),
}
TABLE = {name: row for names, row in _GROUPS.items() for name in names.split()}
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
