"""A pickle machine that rebuilds tensors and plain containers, and nothing else.

A pickle is a program. This one runs on lists, dicts, tuples, strings and numbers, and on the few
names that torch writes for a tensor; no name is ever looked up in Python. Anything else in it, such
as the options of a training script, becomes an inert placeholder, `torch_names.Foreign`.
`pickletools` of the standard library reads the opcodes.
"""

import mmap
import pickletools
from typing import IO, Any, NamedTuple

from .tensors import CheckpointError, Storage, Tensor
from .torch_names import Foreign, call, dictionary, named, of, storage

MAX_OPCODES = 2_000_000  # some 60,000 tensors
MAX_COPIED = 1_000_000  # items of containers that calls copy, all together


class Pickled(NamedTuple):
    """The value of a pickle, and the storages its tensors lie in, by key."""

    value: Any
    storages: dict[str, Storage]


def unpickle(file: IO[bytes] | mmap.mmap) -> Pickled:
    """Run the pickle at the file's position and leave the file just after it.

    Raises:
        CheckpointError: the pickle uses an operation that no state dict needs, builds more than
            one could hold, or is damaged.
    """
    try:
        return _run(file)
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, DeprecationWarning) as error:
        raise CheckpointError(f"its pickle is damaged: {str(error)[:100]}") from error


def _run(file: Any) -> Pickled:
    storages: dict[str, Storage] = {}
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}
    copied = 0

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marks.pop()
        return items

    def called(function: Any, arguments: Any) -> Any:
        nonlocal copied
        if isinstance(arguments, tuple):
            copied += sum(len(a) for a in arguments if isinstance(a, list | tuple | dict))
        if copied > MAX_COPIED:
            raise CheckpointError(f"its pickle copies more than {MAX_COPIED} items")
        return call(function, arguments)

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
                if not isinstance(stack[-1], Foreign):
                    of(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                if not isinstance(stack[-1], Foreign):
                    of(list, stack[-1]).extend(items)
            case "EMPTY_SET":
                stack.append(Foreign("builtins.set"))
            case "ADDITEMS":
                since_mark()
                of(Foreign, stack[-1])
            case "FROZENSET":
                since_mark()
                stack.append(Foreign("builtins.frozenset"))
            case "BYTEARRAY8":
                stack.append(Foreign("builtins.bytearray"))
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = since_mark()
                stack.append(dictionary(zip(items[::2], items[1::2], strict=True)))
            case "SETITEM":
                key, value = stack[-2:]
                del stack[-2:]
                if not isinstance(stack[-1], Foreign):
                    of(dict, stack[-1]).update(dictionary([(key, value)]))
            case "SETITEMS":
                items = since_mark()
                if not isinstance(stack[-1], Foreign):
                    pairs = zip(items[::2], items[1::2], strict=True)
                    of(dict, stack[-1]).update(dictionary(pairs))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [named(*stack[-2:])]
            case "INST":
                since_mark()
                stack.append(of(Foreign, named(*argument.split(" ", 1))))
            case "OBJ":
                stack.append(of(Foreign, since_mark()[0]))
            case "BINPERSID":
                found = storage(*of(tuple, stack.pop()))
                if isinstance(found, Storage):
                    storages.setdefault(found.key, found)
                stack.append(found)
            case "REDUCE" | "NEWOBJ":
                function, arguments = stack[-2:]
                stack[-2:] = [called(function, arguments)]
            case "NEWOBJ_EX":
                stack[-3:] = [of(Foreign, stack[-3])]
            case "BUILD":
                stack.pop()  # attributes of an OrderedDict (`_metadata`) or of a tensor
                of((dict, Tensor, Foreign), stack[-1])
            case other:
                raise CheckpointError(f"its pickle uses {other}, which no state dict needs")
    raise CheckpointError("its pickle has no end")


_LITERALS = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
"""
LITERALS = frozenset(_LITERALS.split())
