"""A pickle machine that rebuilds tensors and plain containers, and nothing else.

A pickle is a program. This one runs on lists, dicts, tuples, strings and numbers, and on the few
names that torch writes for a tensor; no name is ever looked up in Python. `pickletools` of the
standard library reads the opcodes.
"""

import mmap
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from .tensors import DTYPES, CheckpointError, Storage, Tensor, quote, rebuild

MAX_OPCODES = 2_000_000  # some 60,000 tensors


class Global(NamedTuple):
    """A name that a pickle asked for, `module.attribute`, and that is known."""

    name: str


class Pickled(NamedTuple):
    """The value of a pickle, and the storages its tensors lie in, by key."""

    value: Any
    storages: dict[str, Storage]


def unpickle(file: IO[bytes] | mmap.mmap) -> Pickled:
    """Run the pickle at the file's position and leave the file just after it.

    Raises:
        CheckpointError: the pickle asks for a name that is no part of a tensor, for an operation
            that no state dict needs, or is damaged.
    """
    try:
        return _run(file)
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, DeprecationWarning) as error:
        raise CheckpointError(f"its pickle is damaged: {str(error)[:100]}") from error


def _run(file: Any) -> Pickled:
    storages: dict[str, Storage] = {}
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marks.pop()
        return items

    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPCODES:
            raise CheckpointError(f"its pickle has more than {MAX_OPCODES} operations")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return Pickled(stack.pop(), storages)
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case name if name in LITERALS:
                stack.append(argument)
            case "MARK":
                marks.append(stack)
                stack = []
            case "POP":
                stack.pop()
            case "POP_MARK":
                since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                items = since_mark()
                stack.append(items)
            case "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _of(list, stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = since_mark()
                stack.append(_dict(zip(items[::2], items[1::2], strict=True)))
            case "SETITEM":
                key, value = stack[-2:]
                del stack[-2:]
                _of(dict, stack[-1]).update(_dict([(key, value)]))
            case "SETITEMS":
                items = since_mark()
                _of(dict, stack[-1]).update(_dict(zip(items[::2], items[1::2], strict=True)))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                module, attribute = stack[-2:]
                stack[-2:] = [_known(f"{_of(str, module)}.{_of(str, attribute)}")]
            case "INST":
                _known(argument.replace(" ", ".", 1))
                raise CheckpointError("its pickle makes an instance, which no state dict needs")
            case "BINPERSID":
                storage = _storage(*stack.pop())
                storages.setdefault(storage.key, storage)
                stack.append(storage)
            case "REDUCE" | "NEWOBJ":
                function, arguments = stack[-2:]
                stack[-2:] = [_call(function, arguments)]
            case "BUILD":
                stack.pop()  # attributes of an OrderedDict (`_metadata`) or of a tensor
                _of((dict, Tensor), stack[-1])
            case other:
                raise CheckpointError(f"its pickle uses {other}, which no state dict needs")
    raise CheckpointError("its pickle has no end")


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(f"its pickle is damaged: a {type(value).__name__} is out of place")
    return value


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    # Keys that are tuples could cost exponential time to hash.
    return {_of((str, int, float, bytes, type(None)), key): value for key, value in pairs}


def _known(name: str) -> Global:
    if name in CALLS or name in TYPES or name in KINDS:
        return Global(name)
    raise CheckpointError(
        f"its pickle asks for {quote(name)}; only tensors are rebuilt and nothing else is run "
        "(a checkpoint must hold a state dict, not a whole model)"
    )


def _call(function: Any, arguments: Any) -> Any:
    name = _of(Global, function).name
    if name not in CALLS:
        raise CheckpointError(f"its pickle calls {quote(name)}, which builds no tensor")
    return CALLS[name](*_of(tuple, arguments))


def _storage(
    kind: Any, dtype: Any, key: Any, device: Any, size: Any, window: Any = None
) -> Storage:
    """Rebuild a storage from torch's persistent id.

    `window` is the legacy format's (key, start, size) of a storage that is a part of another.
    """
    dtype = TYPES.get(_of(Global, dtype).name, "")
    if kind != "storage" or dtype == "":
        raise CheckpointError("its pickle refers to something that is not a storage")
    start, size = (0, size) if window is None else window[1:]
    if not (type(start) is int and type(size) is int and start >= 0 and 0 <= size < 2**62):
        raise CheckpointError("the start or size of a storage is not a count")
    return Storage(_of(str, key), dtype, start, size)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    if _of(Storage, storage).dtype is None:
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
) -> Tensor:
    name = _of(Global, dtype).name
    if name not in KINDS:
        raise CheckpointError(f"a tensor's dtype is {name!r}, which is none")
    return rebuild(storage, offset, shape, strides, KINDS[name], *rest[:1])


def _first(value: Any, *rest: Any) -> Any:
    return value


def _subclass(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return _call(function, arguments)


_LITERALS = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
"""
LITERALS = frozenset(_LITERALS.split())

CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "torch.Size": lambda shape: tuple(_of((tuple, list), shape)),
    "torch.device": lambda *name: None,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
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
    }.items()
}
