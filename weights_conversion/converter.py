"""One converter for every model: a path in the NNX state is a key in the state dict."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .matching import Rename, misfit, renaming, without_prefix
from .tensors import CheckpointError, release

NAMES: Mapping[str, str] = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "negative_slope": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
"""What torch calls the last part of a path in an NNX state, where the name differs."""

_ALIGNMENT = 64  # bytes
_BLOCK = 64  # output channels copied at once: a whole transposition would miss the CPU's cache


def convert(
    state: Mapping[str, np.ndarray],
    model: nnx.Module,
    *,
    rename: Rename | None = None,
    flatten: Mapping[str, tuple[int, int, int]] | None = None,
    dtype: Any = None,
) -> nnx.State:
    """Convert a torch state dict to the state of an NNX model.

    The parameter at the path `layer1.0.conv1.kernel` comes from the key `layer1.0.conv1.weight`:
    `kernel`, `scale` and `embedding` are torch's `weight`, `mean` and `var` its `running_mean` and
    `running_var`, other names are equal. A kernel `(O, I, *window)` becomes `(*window, I, O)`,
    which serves convolutions of any rank, grouped or not, and dense layers. The kernel of a
    transposed convolution, `(I, O, *window)` in torch, becomes `(*window, I, O)` with each window
    reversed, as Flax applies it. torch flattens feature maps in the order C, H, W and Flax in
    the order H, W, C; `flatten` names the layers that this concerns. `num_batches_tracked` is
    ignored; nothing else is, on either side. What all keys begin with, as Lightning's `model.`, is
    taken off where no name of the model appears before.

    Args:
        state: arrays by torch key, e.g. from `open_checkpoint`; one is read at a time. What is
            `of_flax`, as `OrbaxFolder`, is in Flax's order already: nothing is reversed in it, and
            `flatten` is left aside.
        model: the model, or its skeleton from `nnx.eval_shape`; read, not changed.
        rename: from a key of `state` to the model's own, where they differ: a function, or a dict
            from how keys begin to what they become, as `{"backbone.": "", "head.": "fc."}`; an
            empty name leaves an array out.
        flatten: `{"classifier.0": (C, H, W)}`, the feature maps that a dense layer takes, by the
            layer's name in the model.
        dtype: of the parameters, e.g. `jnp.bfloat16`; by default the model's own. Running
            statistics always keep the model's.

    Returns:
        The parameters and running statistics, for `nnx.update(model, state)`.

    Raises:
        CheckpointError: some keys are missing, unused, mis-shaped or mis-typed: says in ten lines
            how many fit, the first that do not, and what the file may call them.

    >>> model = nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> weights = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.zeros(2)}
    >>> convert(weights, model)["kernel"][...].tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    >>> convert({"weight": np.zeros((3, 3)), "biases": np.zeros(2)}, model)
    Traceback (most recent call last):
    weights_conversion.tensors.CheckpointError: the checkpoint does not fit the model:
      missing: bias
      mis-shaped: weight is (3, 3), the model's (2, 3)
      unused: biases
    """
    fit = _fit(state, model, rename, flatten)
    if fit.problems:
        raise CheckpointError(
            misfit(fit.problems, len(fit.matched) - fit.wrong, fit.missing, fit.unused)
        )

    def value(
        path: tuple[Any, ...],
        variable: nnx.Variable,
        keys: tuple[str, ...],
        maps: Any,
        transposed: bool,
    ) -> jax.Array:
        kind = dtype if dtype is not None and isinstance(variable, nnx.Param) else variable.dtype
        array = _joined(state, keys).reshape(_torch_shape(path[-1], variable.shape, transposed))
        if path[-1] == "kernel":
            array = _reversed(array) if transposed else _kernel(array, maps)
        return jax.device_put(_copy(array, kind).reshape(variable.shape))

    return nnx.from_flat_state([(m[0], m[1].replace(value(*m))) for m in fit.matched])


def problems(
    state: Mapping[str, np.ndarray],
    model: nnx.Module,
    *,
    rename: Rename | None = None,
    flatten: Mapping[str, tuple[int, int, int]] | None = None,
) -> list[str]:
    """Return all that `convert` would refuse of the same arguments, a line each."""
    return _fit(state, model, rename, flatten).problems


class _Fit(NamedTuple):
    matched: list[tuple]
    problems: list[str]
    missing: list[str]
    unused: list[str]
    wrong: int


def _fit(
    state: Mapping[str, np.ndarray],
    model: nnx.Module,
    rename: Rename | None,
    flatten: Mapping[str, tuple[int, int, int]] | None,
) -> _Fit:
    """Match the arrays of a state dict with the variables of a model."""
    variables = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    named = {path: torch_name(path) for path, _ in variables}
    keys, found = _by_name(without_prefix(state, named.values(), renaming(rename)))
    shapes, turned = dict(flatten or {}), _transposed(model)
    if getattr(state, "of_flax", False):
        shapes, turned = {}, set()
    matched, missing, wrong = [], [], 0
    for path, variable in variables:
        name, last = named[path], str(path[-1])
        mine = keys.pop(name, None)
        maps = shapes.pop(".".join(map(str, path[:-1])), None) if last == "kernel" else None
        if mine is None:
            missing.append(name)
            found.append(f"missing: {name}")
            continue
        transposed = last == "kernel" and path[:-1] in turned
        shape = _torch_shape(last, variable.shape, transposed)
        misfits = _misfits(" and ".join(mine), _joined(state, mine), shape, maps)
        found += misfits
        wrong += bool(misfits)
        matched.append((path, variable, mine, maps, transposed))
    unused = [key for several in keys.values() for key in several]
    found += [f"unused: {key}" for key in unused]
    found += [f"flatten names no dense layer of the model: {layer}" for layer in shapes]
    return _Fit(matched, found, missing, unused, wrong)


def torch_name(path: Iterable[Any]) -> str:
    """Return what torch calls the variable at a path of an NNX state.

    >>> torch_name(("layer1", 0, "conv1", "kernel"))
    'layer1.0.conv1.weight'
    """
    *parents, last = map(str, path)
    return ".".join([*parents, NAMES.get(last, last)])


def _by_name(names: Mapping[str, str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the state's keys by the model's names, in order, and which are ambiguous."""
    parts: dict[str, dict[int, str]] = {}
    ambiguous = []
    for key, name in names.items():
        if not name:
            continue
        whole, _, number = name.removesuffix("]").partition("[")
        mine, place = parts.setdefault(whole, {}), int(number or 0)
        if place in mine:
            ambiguous.append(f"ambiguous: {mine[place]} and {key} are both {name}")
        mine[place] = key
    return {name: tuple(p[i] for i in sorted(p)) for name, p in parts.items()}, ambiguous


def _joined(state: Mapping[str, np.ndarray], keys: tuple[str, ...]) -> np.ndarray:
    """Return the array of a key, or those of several one behind the other."""
    return state[keys[0]] if len(keys) == 1 else np.concatenate([state[k] for k in keys])


def _misfits(key: str, array: np.ndarray, shape: tuple[int, ...], maps: Any) -> list[str]:
    """Say what is wrong with an array whose shape should be `shape`, in torch's order."""
    problems = []
    if _long(array.shape) != _long(shape):
        problems.append(f"mis-shaped: {key} is {array.shape}, the model's {shape}")
    elif maps is not None and (len(shape) != 2 or prod(maps) != shape[1]):
        problems.append(f"mis-shaped: {key} is {shape}, which does not take maps of {maps}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        problems.append(f"mis-typed: {key} is {array.dtype}, not a floating type")
    return problems


def _long(shape: tuple[int, ...]) -> list[int]:
    """Return a shape without axes of length one: a 1x1 convolution is a dense layer's matrix."""
    return [n for n in shape if n != 1]


def _transposed(model: nnx.Module) -> set[tuple[Any, ...]]:
    """Return the paths of transposed convolutions whose kernels are `(*window, I, O)`.

    With `transpose_kernel` they are `(*window, O, I)` and not reversed, so that the rule for
    all other kernels serves them.
    """
    return {
        path
        for path, layer in nnx.iter_graph(model)
        if isinstance(layer, nnx.ConvTranspose) and not layer.transpose_kernel
    }


def _torch_shape(last: str, shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    """Return torch's shape of a variable: `(*window, I, O)` is its `(O, I, *window)`.

    Of a transposed convolution it is `(I, O, *window)`.
    """
    if last != "kernel":
        return shape
    return (*(shape[-2:] if transposed else shape[:-3:-1]), *shape[:-2])


def _reversed(weight: np.ndarray) -> np.ndarray:
    """View `(I, O, *window)` as `(*window, I, O)`, the windows reversed."""
    window = tuple(range(2, weight.ndim))
    return np.flip(weight, window).transpose(*window, 0, 1)


def _kernel(weight: np.ndarray, maps: tuple[int, int, int] | None) -> np.ndarray:
    """View `(O, I, *window)` as `(*window, I, O)`, and `(O, C H W)` as `(H, W, C, O)`."""
    if maps is not None:
        weight = weight.reshape(-1, *maps)
    return weight.transpose(*range(2, weight.ndim), 1, 0)


def _copy(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Copy to contiguous memory of another dtype, aligned so that JAX on the CPU takes it over."""
    dtype, array = np.dtype(dtype), np.atleast_1d(array)
    memory = np.empty(array.size * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.size * dtype.itemsize].view(dtype).reshape(array.shape)
    for i in range(0, array.shape[-1], _BLOCK):
        copy[..., i : i + _BLOCK] = array[..., i : i + _BLOCK]
        release(array)
    return copy
