"""Find the modules of Flax NNX, Equinox and Keras: what a function holds, what is below a module.

A framework that the user has not imported is not looked for.
"""

import functools
import sys
from collections import deque
from collections.abc import Iterator, Mapping, MutableSequence
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]

_LOOKED_AT = 1000  # values that a function holds, and they hold, before its models are given up
_LIBRARIES = ("jax", "flax", "equinox", "haiku", "keras", "numpy", "optax")


def unnamed() -> tuple[type, ...]:
    """Return the classes of modules whose framework does not name what they compute."""
    return _existing(("flax.nnx", "Module"), ("equinox", "Module"))


def classes() -> set[type]:
    """Return the classes of such modules that say how they are called."""
    return {c for base in unnamed() for c in _below(base) if "__call__" in vars(c)}


def models(f: Any) -> dict[str, Any]:
    """Return the models that a function holds, by the names of the variables that hold them.

    They are looked for in its closure, the globals it names, what it is bound or applied to.
    """
    kinds = unnamed() + _existing(("flax.nnx", "GraphDef"), ("keras", "Layer"))
    found, seen, queue = {}, set(), deque([("", f)])
    while queue and len(seen) < _LOOKED_AT:
        name, value = queue.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, kinds):
            found.setdefault(name, value)
        else:
            queue.extend((inner or name, v) for inner, v in _held(value))
    return found


def paths(held: Mapping[str, Any]) -> dict[int, Path]:
    """Return where modules are, by their identity: below the only model, or below their names."""
    roots = {name: m for name, m in held.items() if isinstance(m, unnamed())}
    only = len({id(m) for m in roots.values()}) == 1
    found: dict[int, Path] = {}
    _descend(next(iter(roots.values())) if only else roots, (), found)
    return found


def known_by(f: Any, layer: Any) -> str | int | Path:
    """Return the name or the position of a layer, or the path of one that is given as a module.

    Args:
        f: the function that holds the model.
        layer: its name or position, a module of NNX or Equinox below the model, a module of Linen
            that is bound, or a layer of Keras.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(layer, str) or type(layer) is int:
        return layer
    path = paths(models(f)).get(id(layer), ())
    if isinstance(layer, _existing(("flax.linen", "Module"))):
        path = layer.path if layer.scope is not None else ()
    if isinstance(layer, _existing(("keras", "Layer"))):
        path = (layer.name,)
    if not path:
        raise ValueError(
            f"layer is a {type(layer).__name__} that is no part of a model in the function: give a "
            "module of the model, its name, or its position in jaxattr.sites(f, x)"
        )
    return path


def _existing(*named: tuple[str, str]) -> tuple[type, ...]:
    libraries = [(sys.modules.get(library), name) for library, name in named]
    return tuple(getattr(library, name) for library, name in libraries if hasattr(library, name))


def _below(base: type) -> Iterator[type]:
    for c in base.__subclasses__():
        if not c.__module__.startswith("equinox._"):  # a wrapper, of a method or a transformation
            yield c
        yield from _below(c)


def _descend(value: Any, path: Path, found: dict[int, Path]) -> None:
    modules = unnamed()
    if _is(type(value), (list, tuple, MutableSequence)):
        children = enumerate(value)
    else:
        children = (value if isinstance(value, dict) else vars(value)).items()
    for name, child in children:
        is_module = _is(type(child), modules)
        if id(child) in found or not (is_module or isinstance(child, list | tuple | dict)):
            continue
        here = (*path, str(name))
        if is_module:
            found[id(child)] = here
        _descend(child, here, found)


@functools.lru_cache
def _is(kind: type, base: tuple[type, ...]) -> bool:
    return issubclass(kind, base)


def _held(f: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values that a function or object holds, with the names of their variables."""
    if isinstance(f, functools.partial):
        yield from (("", v) for v in (f.func, *f.args))
        yield from f.keywords.items()
    elif isinstance(f, MethodType):
        yield from (("", f.__self__), ("", f.__func__))
    elif isinstance(f, FunctionType):
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            yield from ((name, v) for v in _contents(cell))
        if f.__module__ is None or f.__module__.split(".")[0] not in _LIBRARIES:
            yield from ((n, f.__globals__[n]) for n in _names(f.__code__) if n in f.__globals__)
    elif callable(f) and hasattr(f, "__wrapped__"):
        yield "", getattr(f, "__wrapped__", None)
    elif hasattr(f, "__dict__") and not isinstance(f, type | ModuleType):
        yield from list(vars(f).items())


def _contents(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not assigned yet
        return ()


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
