"""Which of the dicts in a training checkpoint is the model's state dict."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .tensors import CheckpointError, Tensor, quote
from .torch_names import Foreign, Global

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "teacher",
    "checkpoint",
)
"""Keys under which training scripts keep the state dict, the first that is there counts."""

AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "params_ema",
    "ema_model",
    "ema",
)
"""Keys of an average of the weights over training, with which a model is meant to be used."""

MAX_DEPTH = 3  # a state dict inside a dict inside a dict
_PARALLEL = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel, and of torch.compile


class Chosen(NamedTuple):
    """The state dict of a checkpoint.

    Attributes:
        tensors: by name.
        key: the keys that lead to it, joined by dots; empty where it is the whole object.
        others: keys of the other dicts that the model's weights could have been.
    """

    tensors: dict[str, Tensor]
    key: str
    others: tuple[str, ...]


def choose(value: Any, *, key: str | None = None, ema: bool = True) -> Chosen:
    """Find the state dict in the object that a checkpoint holds.

    Values that are no tensors, such as counters, are left out, and so are the prefixes `module.`
    and `_orig_mod.` where every name has them, and the counter of an `AveragedModel`.

    Args:
        value: the object.
        key: where the state dict is, as `"teacher"` or `"ema.module"`; by default under one of
            `AVERAGED` or `WRAPPERS`.
        ema: whether an average over training is preferred, where the file has both.

    Raises:
        CheckpointError: there is no state dict, or something in it is no tensor of torch's.
    """
    if isinstance(value, Foreign | Global):
        raise CheckpointError(
            f"it holds a {quote(value.name)}, which only other code can build (a whole model?): "
            "save its state dict, torch.save(model.state_dict(), path)"
        )
    if not isinstance(value, dict):
        raise CheckpointError(f"it holds a {type(value).__name__}, not a state dict")
    if key is None:
        path, found, others = _usual(
            value, (*AVERAGED, *WRAPPERS) if ema else (*WRAPPERS, *AVERAGED)
        )
    else:
        path, found, others = key, _at(value, key), ()
    tensors = {name: v for name, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f"it holds no state dict; its keys are: {_described(found)}")
    for name, v in found.items():
        if isinstance(v, Foreign):
            raise CheckpointError(f"{quote(str(name))} of its state dict is a {quote(v.name)}")
    if not all(isinstance(name, str) for name in tensors):
        raise CheckpointError("a tensor of its state dict has no name")
    return Chosen(_without_prefixes(tensors), path, others)


def _usual(value: dict[Any, Any], names: tuple[str, ...]) -> tuple[str, dict, tuple[str, ...]]:
    """Go down by the first of some names, and say which others there were."""
    path: list[str] = []
    others: list[str] = []
    for _ in range(MAX_DEPTH):
        there = [name for name in names if _holds_tensors(value.get(name))]
        if not there:
            break
        others += [".".join([*path, name]) for name in there[1:]]
        path.append(there[0])
        value = value[there[0]]
    return ".".join(path), value, tuple(others)


def _at(value: dict[Any, Any], key: str) -> dict[Any, Any]:
    """Return the dict at a path of keys, of which one may have dots itself."""
    rest, here = key, value
    while rest:
        ends = [len(rest), *(i for i, c in enumerate(rest) if c == ".")]
        step = next((rest[:i] for i in ends if isinstance(here.get(rest[:i]), dict)), None)
        if step is None:
            known = ", ".join(quote(k) for k in _paths(value)) or "none"
            raise CheckpointError(f"it has no dict {quote(key)}; those with tensors are: {known}")
        here, rest = here[step], rest[len(step) + 1 :]
    return here


def _paths(value: Any, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the keys of the first dicts that hold tensors."""
    for name, inner in list(value.items())[:20]:
        if isinstance(name, str) and isinstance(inner, dict):
            if any(isinstance(v, Tensor) for v in inner.values()):
                yield name
            elif depth > 1:
                yield from (f"{name}.{rest}" for rest in _paths(inner, depth - 1))


def _holds_tensors(value: Any, depth: int = MAX_DEPTH) -> bool:
    return isinstance(value, dict) and (
        any(isinstance(v, Tensor) for v in value.values())
        or (depth > 1 and any(_holds_tensors(v, depth - 1) for v in value.values()))
    )


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    counted = {k: v for k, v in tensors.items() if k != "n_averaged" or v.shape}
    if len(counted) < len(tensors) and all(k.startswith("module.") for k in counted):
        tensors = counted
    while prefix := next((p for p in _PARALLEL if all(k.startswith(p) for k in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _described(value: Mapping[Any, Any]) -> str:
    """List the first keys of a dict, and what is foreign behind them."""

    def one(name: Any, inner: Any) -> str:
        shown = quote(name) if isinstance(name, str) else f"a {type(name).__name__}"
        return f"{shown} (a {quote(inner.name)})" if isinstance(inner, Foreign) else shown

    return ", ".join(one(*item) for item in list(value.items())[:10])
