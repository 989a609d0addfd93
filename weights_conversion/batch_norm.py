"""Fold BatchNorm into the layer before it."""

import types
from functools import reduce
from typing import Any

import jax
from flax import nnx

Path = tuple[Any, ...]


def fold_batch_norm(model: nnx.Module, x: Any) -> nnx.Module:
    """Return a copy of the model in which BatchNorms are folded into the layers before them.

    A BatchNorm in evaluation mode is affine in each channel, so that with `s = scale / sqrt(var +
    epsilon)` a convolution or dense layer `W x + b` followed by it is one layer:
    `(s W) x + (s (b - mean) + bias)`. The layer takes these weights and the identity takes the
    BatchNorm's place; the output is the same to float rounding. Which layer a BatchNorm follows is
    read off a trace of the model. A BatchNorm that follows none (it normalizes a sum, say), and one
    that is used twice or follows a layer used twice, stay as they are.

    The output of a layer that is folded must go to its BatchNorm alone.

    Args:
        model: a model in evaluation mode.
        x: an input, or the shape of one (`jax.ShapeDtypeStruct`).

    Returns:
        The folded copy; `model` is not changed. The skeleton of one, to restore folded weights
        into, is `nnx.eval_shape(lambda: fold_batch_norm(build(), x))`.

    Raises:
        ValueError: a BatchNorm is in training mode, or none can be folded.

    >>> rngs = nnx.Rngs(0)
    >>> norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
    >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), norm, nnx.relu)
    >>> folded = fold_batch_norm(model, jax.ShapeDtypeStruct((1, 3), "float32"))
    >>> [type(layer).__name__ for layer in folded.layers]
    ['Linear', 'function', 'custom_jvp']
    """
    folded = nnx.clone(model)
    pairs = _pairs(model, x)
    if not pairs:
        raise ValueError("the model has no BatchNorm that follows a convolution or a dense layer")
    for norm_path, layer_path in pairs.items():
        norm, layer = _get(folded, norm_path), _get(folded, layer_path)
        scale = jax.lax.rsqrt(norm.var[...] + norm.epsilon)
        if norm.scale is not None:
            scale *= norm.scale[...]
        bias = -norm.mean[...] if layer.bias is None else layer.bias[...] - norm.mean[...]
        bias *= scale
        if norm.bias is not None:
            bias += norm.bias[...]
        kernel = layer.kernel[...]
        layer.kernel = nnx.Param((kernel * scale).astype(kernel.dtype))
        layer.bias = nnx.Param(bias.astype(kernel.dtype))
        layer.use_bias = True
        _set(folded, norm_path, nnx.static(identity))
    return folded


def identity(x: jax.Array) -> jax.Array:
    """Return `x`: the place of a BatchNorm that was folded."""
    return x


def _pairs(model: nnx.Module, x: Any) -> dict[Path, Path]:
    """Return the path of the layer whose output each BatchNorm takes, from one trace."""
    watched = nnx.clone(model)
    sources: dict[int, Path] = {}
    outputs: list[Any] = []  # kept, so that no two have the same id
    calls: list[tuple[Path, Path | None]] = []

    def watch(path: Path, layer: Any) -> None:
        kind = type(layer)

        def call(self: Any, x: Any, *args: Any, **options: Any) -> Any:
            calls.append((path, sources.get(id(x))))
            outputs.append(kind.__call__(self, x, *args, **options))
            if kind is not nnx.BatchNorm:
                sources[id(outputs[-1])] = path
            return outputs[-1]

        layer.__class__ = types.new_class(
            kind.__name__, (kind,), exec_body=lambda body: body.update(__call__=call)
        )

    norms = set()
    for path, layer in list(nnx.iter_graph(watched)):
        if type(layer) is nnx.BatchNorm:
            if not layer.use_running_average or layer.axis != -1:
                raise ValueError(
                    f"{'.'.join(map(str, path))} is in training mode or does not normalize the "
                    "last axis: call `model.eval()` first"
                )
            norms.add(path)
        if type(layer) in (nnx.Conv, nnx.Linear, nnx.BatchNorm):
            watch(path, layer)
    jax.eval_shape(lambda x: watched(x), x)  # pyright: ignore[reportCallIssue]
    used = [path for path, _ in calls]
    return {
        path: source
        for path, source in calls
        if path in norms and source and used.count(path) == used.count(source) == 1
    }


def _get(model: Any, path: Path) -> Any:
    return reduce(lambda m, p: m[p] if isinstance(p, int) else getattr(m, p), path, model)


def _set(model: Any, path: Path, value: Any) -> None:
    parent = _get(model, path[:-1])
    if isinstance(path[-1], int):
        parent[path[-1]] = value
    else:
        setattr(parent, path[-1], value)
