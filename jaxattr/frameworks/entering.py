"""Run the models of Flax NNX, Equinox and Keras so that layers have names and nothing changes.

Linen, Haiku and Keras name what their modules compute by themselves.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, partial, wraps
from threading import RLock
from types import FunctionType
from typing import Any, NamedTuple

import jax
from jax.extend import source_info_util

from jaxattr.frameworks import modules
from jaxattr.frameworks.modules import Path

EVALUATION = (
    "put the model into evaluation mode (model.eval(), train=False, training=False, "
    "use_running_average=True)"
)
"""What to do about a model that is being trained."""


class Running(NamedTuple):
    """A module that is being called.

    Attributes:
        module: it, or None around all of them.
        scopes: the named scopes around what it computes.
        paths: gives where the modules below it are, by their identity.
        clones: whether a module of NNX is to be copied before it is called.
    """

    module: Any
    scopes: Path
    paths: Callable[[], Mapping[int, Path]]
    clones: bool = False


_RUNNING: ContextVar[Running | None] = ContextVar("running", default=None)
_NAMED: dict[type, Any] = {}  # the classes whose calls are named now, and their own calls
_LOCK = RLock()


def entered(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return `f`, to be traced: modules name what they compute, and none is changed.

    What an NNX or Equinox module computes is named by its path from the module that calls it, as
    in `layer1/0/conv`, unless the user's own `jax.named_scope` says that already. Called outside of
    any module it is named by its path from the model that `f` holds; of several models, after the
    variables that hold them. Classes are given a named call for that time, and then back their own.

    Raises:
        ValueError: if a model would change, as a BatchNorm's statistics or a dropout's count do,
            or one of Keras has no weights yet.
    """

    def run(*args: Any) -> Any:
        try:
            return _run(f, *args)
        except ValueError as error:  # closed over, where a transformation of NNX wants its own
            if "different trace level" not in str(error):
                raise
        return _run(f, *args, clones=True)

    return run


def unjitted(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a function under `jit` was made of, to be traced anew; any other as it is."""
    return getattr(f, "__wrapped__", f) if isinstance(f, jax.stages.Wrapped) else f


def _run(f: Callable[..., Any], *args: Any, clones: bool = False) -> Any:
    held = modules.models(f)
    if any(getattr(m, "built", True) is False for m in held.values()):
        raise ValueError("the model of Keras has no weights yet: call it once on images")
    running = Running(None, _scopes(), cache(partial(modules.paths, held)), clones)
    with _named_calls() if held else nullcontext(), _entered(running), _unchanged():
        return f(*args)


@contextmanager
def _unchanged() -> Iterator[None]:
    """Raise `ValueError` if a model changes; one of Keras is kept from it."""
    stateless = getattr(sys.modules.get("keras"), "StatelessScope", None)
    try:
        with stateless() if stateless else nullcontext() as scope:
            yield
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        raise (_passed() if "Param " in str(error) else _changes()) from error
    if scope is not None and scope.state_mapping:
        raise _changes()


def _changes() -> ValueError:
    return ValueError(
        "the model changes its own state when it is called, as a BatchNorm or a dropout in "
        f"training mode does: {EVALUATION}"
    )


def _passed() -> ValueError:
    return ValueError(
        "the function passes a model to nnx.jit or another transformation of NNX, which Flax does "
        "not allow inside jax.grad either: call the model itself there, and jit the attribution"
    )


@contextmanager
def _named_calls() -> Iterator[None]:
    """Let every call of a module of NNX or Equinox be a named scope."""
    with _LOCK:
        own = {c: vars(c)["__call__"] for c in modules.classes() - _NAMED.keys()}
        try:
            _NAMED.update(own)
            for c, call in own.items():
                type.__setattr__(c, "__call__", _named(call))
            yield
        finally:
            for c, call in own.items():
                type.__setattr__(c, "__call__", call)
                del _NAMED[c]


def _named(call: Any) -> Callable[..., Any]:
    def bound(module: Any) -> Callable[..., Any]:
        return call.__get__(module, type(module)) if hasattr(call, "__get__") else call

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        running = _RUNNING.get()
        if running is None or running.module is self:
            return bound(self)(*args, **kwargs)
        with _scope(_name(running, self)), _cloned(self, running) as module:
            inside = Running(module, _scopes(), cache(partial(modules.paths, {"": module})))
            with _entered(inside):
                return bound(module)(*args, **kwargs)

    return wraps(call)(__call__) if isinstance(call, FunctionType) else __call__


@contextmanager
def _entered(running: Running) -> Iterator[None]:
    token = _RUNNING.set(running)
    try:
        yield
    finally:
        _RUNNING.reset(token)


@contextmanager
def _cloned(module: Any, running: Running) -> Iterator[Any]:
    """Give a copy of a module of NNX if that is to be, and see that it stays what it was."""
    nnx = sys.modules.get("flax.nnx")
    if not running.clones or nnx is None or not isinstance(module, nnx.Module):
        yield module
        return
    clone, mutable = nnx.clone(module), nnx.Not(nnx.Param)
    before = jax.tree.leaves(nnx.state(module, mutable))
    yield clone
    after = jax.tree.leaves(nnx.state(clone, mutable))
    if any(a is not b for a, b in zip(before, after, strict=True)):
        raise _changes()


def _scopes() -> Path:
    return tuple(filter(None, str(source_info_util.current_name_stack()).split("/")))


def _scope(name: Path) -> Any:
    return jax.named_scope("/".join(name)) if name else nullcontext()


def _name(running: Running, module: Any) -> Path:
    """Return what of a module's path the scopes around its call do not say yet."""
    path, around = running.paths().get(id(module), ()), _scopes()
    inside = around[: len(running.scopes)] == running.scopes
    own = around[len(running.scopes) :] if inside else around
    if own[-1:] == path[-1:]:
        return ()
    said = max(k for k in range(len(path) + 1) if own[len(own) - k :] == path[:k])
    return path[said:]
