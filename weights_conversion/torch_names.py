"""What the names in a checkpoint's pickle stand for: tensors, plain containers, or nothing.

No name is looked up in Python and nothing is called. What is not torch's way to write a tensor or
a dict becomes a `Foreign`: an object of which only the name is known.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .tensors import DTYPES, CheckpointError, Storage, Tensor, quote, rebuild

_LONGEST = 200  # characters of a name; a pickle may join long strings again and again


class Global(NamedTuple):
    """A name that a pickle asked for, `module.attribute`, and that is known."""

    name: str


class Foreign:
    """An object that only other code could build, such as an `argparse.Namespace`: its name.

    It takes whatever a pickle adds to it, and forgets it.
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"Foreign({self.name!r})"


def of(kind: Any, value: Any) -> Any:
    """Return a value of a kind, or say that the pickle is damaged."""
    if not isinstance(value, kind):
        raise CheckpointError(f"its pickle is damaged: a {type(value).__name__} is out of place")
    return value


def named(*parts: str) -> Global | Foreign:
    """Return what a module and an attribute stand for."""
    if sum(len(of(str, part)) for part in parts) > _LONGEST:
        raise CheckpointError(f"its pickle is damaged: it names something by {_LONGEST} characters")
    name = ".".join(parts)
    known = name in CALLS or name in TYPES or name in KINDS
    return Global(name) if known else Foreign(name)


def call(function: Any, arguments: Any) -> Any:
    """Return what torch's function would build, or the foreign object that another would."""
    arguments = of((tuple, Foreign), arguments)
    if isinstance(function, Foreign):
        return function
    name = of(Global, function).name
    if name not in CALLS or isinstance(arguments, Foreign):
        raise CheckpointError(f"its pickle calls {quote(name)}, which builds no tensor")
    return CALLS[name](*arguments)


def dictionary(pairs: Any = ()) -> dict[Any, Any]:
    """Make a dict. A key that is no name or number is kept as a foreign object.

    Tuples may take exponential time to hash, and whole numbers of any length do each time.
    """
    return {
        key if isinstance(key, _KEYS) or _is_short(key) else Foreign(type(key).__name__): value
        for key, value in pairs
    }


_KEYS = (str, float, bytes, type(None))


def _is_short(key: Any) -> bool:
    return isinstance(key, int) and abs(key) < 2**63


def storage(kind: Any, dtype: Any, key: Any, *rest: Any) -> Storage | Foreign | Global:
    """Rebuild a storage from torch's persistent id: what follows is its device, size and window.

    The window is the legacy format's (key, start, size) of a storage that is a part of another.
    There, the class of a module has a persistent id too.
    """
    if kind == "module":
        return of((Global, Foreign), dtype)
    if kind != "storage":
        raise CheckpointError("its pickle refers to something that is not a storage")
    name = of((Global, Foreign), dtype).name
    if name not in TYPES:
        raise CheckpointError(f"its pickle has a storage of an unknown type, {quote(name)}")
    _, size, *window = rest
    start, size = window[0][1:] if window and window[0] is not None else (0, size)
    if not (type(start) is int and type(size) is int and start >= 0 and 0 <= size < 2**62):
        raise CheckpointError("the start or size of a storage is not a count")
    return Storage(of(str, key), TYPES[name], start, size)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor | Foreign:
    if of(Storage, storage).dtype is None:
        raise CheckpointError("a tensor is rebuilt from a storage without a dtype")
    return rebuild(storage, offset, shape, strides, storage.dtype, *rest[2:3])


def _tensor_with_dtype(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *rest: Any,
) -> Tensor | Foreign:
    if isinstance(dtype, Foreign):
        return dtype
    name = of(Global, dtype).name
    if name not in KINDS:
        raise CheckpointError(f"a tensor's dtype is {name!r}, which is none")
    return rebuild(storage, offset, shape, strides, KINDS[name], *rest[:1])


def _first(value: Any, *rest: Any) -> Any:
    return value


def _subclass(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Rebuild a tensor of a subclass, in which no other subclass may stand: they could nest."""
    if isinstance(function, Global) and function.name not in _TENSORS:
        raise CheckpointError(f"its pickle calls {quote(function.name)}, which builds no tensor")
    return call(function, arguments)


def _shape(numbers: Any) -> tuple[Any, ...]:
    """Return a shape; torch allows no more than 64 axes, and a copy of more could fill memory."""
    if len(of((tuple, list), numbers)) > 64:
        raise CheckpointError(f"a tensor's shape has {len(numbers)} axes")
    return tuple(numbers)


_TENSORS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
}

CALLS: Mapping[str, Callable[..., Any]] = {
    **_TENSORS,
    "collections.OrderedDict": dictionary,
    "collections.defaultdict": lambda *factory: {},
    "torch.Size": _shape,
    "torch.device": lambda *name: None,
    "torch._tensor._rebuild_from_type_v2": _subclass,
}

KINDS: Mapping[str, np.dtype] = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}

TYPES: Mapping[str, np.dtype | None] = {
    "torch.storage.UntypedStorage": None,
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
} | {
    f"torch.{prefix}{name}Storage": DTYPES[dtype]
    for prefix in ("", "cuda.")
    for name, dtype in {
        "Float": "float32",
        "Double": "float64",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Bool": "bool",
        "Byte": "uint8",
        "Char": "int8",
        "Short": "int16",
        "Int": "int32",
        "Long": "int64",
        "ComplexFloat": "complex64",
        "ComplexDouble": "complex128",
        "QInt8": "int8",  # of quantized tensors, whose sizes the legacy format needs
        "QUInt8": "uint8",
        "QInt32": "int32",
        "QUInt4x2": "uint8",
        "QUInt2x4": "uint8",
    }.items()
}
