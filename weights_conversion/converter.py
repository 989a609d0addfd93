"""One converter for every model: a path in the NNX state is a key in the state dict."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from .tensors import CheckpointError

NAMES: Mapping[str, str] = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
"""What torch calls the last part of a path in an NNX state, where the name differs."""


def convert(
    state: Mapping[str, np.ndarray],
    model: nnx.Module,
    *,
    rename: Callable[[str], str] | None = None,
    flatten: Mapping[str, tuple[int, int, int]] | None = None,
    dtype: Any = None,
) -> nnx.State:
    """Convert a torch state dict to the state of an NNX model.

    Args:
        state: arrays by torch key, e.g. from `open_checkpoint`.
        model: the model, or its skeleton from `nnx.eval_shape`; read, not changed.
        rename: from a key of `state` to the model's own (`layer1.0.conv1.weight`).
        flatten: `{"classifier.0": (C, H, W)}`, the shape that torch flattened before a dense layer.
        dtype: of the parameters, e.g. `jnp.bfloat16`; the model's own by default. Running
            statistics keep the model's.

    Returns:
        The parameters and running statistics, for `nnx.update(model, state)`.

    Raises:
        CheckpointError: lists every missing, unused and mis-shaped key.
    """
    rename = rename or (lambda key: key)
    flatten = flatten or {}
    arrays = {rename(key): key for key in state if not key.endswith("num_batches_tracked")}
    converted = []
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        *prefix, last = map(str, path)
        key = ".".join([*prefix, NAMES.get(last, last)])
        array = np.asarray(state[arrays.pop(key)])
        if last == "kernel":
            array = _kernel(array, flatten.get(".".join(prefix)))
        kind = dtype if dtype is not None and isinstance(variable, nnx.Param) else variable.dtype
        converted.append((path, variable.replace(jnp.array(array, kind))))
    if arrays:
        raise CheckpointError(f"unused: {sorted(arrays)}")
    return nnx.from_flat_state(converted)


def _kernel(weight: np.ndarray, flattened: tuple[int, int, int] | None = None) -> np.ndarray:
    """Return `(O, I, *window)` as `(*window, I, O)`."""
    if flattened is not None:
        channels, height, width = flattened
        weight = weight.reshape(-1, channels, height, width)
        return weight.transpose(2, 3, 1, 0).reshape(height * width * channels, -1)
    return weight.transpose(*range(2, weight.ndim), 1, 0)
