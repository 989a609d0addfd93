"""The networks of `nets.py` as a user of Flax Linen, Flax NNX, Equinox or Haiku writes them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx, traverse_util
from jax import Array
from nets import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Mean,
    Net,
    Params,
    Residual,
    parameter_free,
    residual,
    run,
)

HWIO = (2, 3, 1, 0)


def weights(layer: Layer, params: Params, path: str) -> dict[str, Array]:
    """Return one layer's weights by their name in Flax."""
    named = {key.removeprefix(path): value for key, value in params.items() if key.startswith(path)}
    if isinstance(layer, BatchNorm):
        flax = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
        return {flax.get(key, key): value for key, value in named.items()}
    kernel = named.pop("weight")
    return {"kernel": kernel.transpose(HWIO) if kernel.ndim == 4 else kernel.T} | named


def walk(net: Net, params: Params, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Array]:
    """Return all weights by Flax path: `("layer1", "conv1", "kernel")`."""
    found = {}
    for layer in net:
        here = (*path, layer.name)
        if isinstance(layer, Residual):
            found |= walk(layer.main + layer.shortcut + layer.after, params, here)
        elif isinstance(layer, Conv | BatchNorm | Dense):
            mine = weights(layer, params, ".".join(here) + ".")
            found |= {(*here, key): value for key, value in mine.items()}
    return found


class LinenBlock(nn.Module):
    block: Residual

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return residual(self.block, x, linen_layer)


class LinenNet(nn.Module):
    net: Net

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return run(self.net, x, linen_layer)


def linen_layer(layer: Layer, x: Array) -> Array:
    """Call one layer as a Linen submodule of the module that is running."""
    match layer:
        case Conv(name, _, features, kernel, stride, padding, groups, bias):
            return nn.Conv(
                features,
                (kernel, kernel),
                stride,
                padding,
                feature_group_count=groups,
                use_bias=bias,
                name=name,
            )(x)
        case BatchNorm(name):
            return nn.BatchNorm(use_running_average=True, name=name)(x)
        case Dense(name, _, features):
            return nn.Dense(features, name=name)(x)
        case Residual(name):
            return LinenBlock(layer, name=name)(x)
        case _:
            with jax.named_scope(layer.name):
                return parameter_free(layer, x)


def linen(net: Net, params: Params) -> Callable[[Array], Array]:
    """Build the network in Flax Linen."""
    flat = walk(net, params)
    collections = {"params": {}, "batch_stats": {}}
    for path, value in flat.items():
        collections["batch_stats" if path[-1] in ("mean", "var") else "params"][path] = value
    variables = {key: traverse_util.unflatten_dict(value) for key, value in collections.items()}
    return lambda x: jnp.asarray(LinenNet(net).apply(variables, x))


class NNXNet(nnx.Module):
    """A sequence, or the layers of a residual block."""

    def __init__(self, net: Net, rngs: nnx.Rngs):
        for layer in net:
            match layer:
                case Conv(_, inputs, features, kernel, stride, padding, groups, bias):
                    module = nnx.Conv(
                        inputs,
                        features,
                        (kernel, kernel),
                        stride,
                        padding=padding,
                        feature_group_count=groups,
                        use_bias=bias,
                        rngs=rngs,
                    )
                case BatchNorm(_, features):
                    module = nnx.BatchNorm(features, use_running_average=True, rngs=rngs)
                case Dense(_, inputs, features):
                    module = nnx.Linear(inputs, features, rngs=rngs)
                case Residual(_, main, shortcut, after):
                    module = NNXNet(main + shortcut + after, rngs)
                case _:
                    continue
            setattr(self, layer.name, module)

    def layer(self, layer: Layer, x: Array) -> Array:
        with jax.named_scope(layer.name):
            match layer:
                case Residual(name):
                    return residual(layer, x, getattr(self, name).layer)
                case Conv(name) | BatchNorm(name) | Dense(name):
                    return getattr(self, name)(x)
                case _:
                    return parameter_free(layer, x)


def flax_nnx(net: Net, params: Params) -> Callable[[Array], Array]:
    """Build the network in Flax NNX."""
    model = nnx.eval_shape(lambda: NNXNet(net, nnx.Rngs(0)))
    nnx.update(model, traverse_util.unflatten_dict(walk(net, params)))
    return partial(run, net, call=model.layer)


def equinox(net: Net, params: Params) -> Callable[[Array], Array]:
    """Build the network in Equinox: one image at a time, channels first, under `vmap`."""

    def module(layer: Layer, path: str) -> Callable[[Array], Array]:
        return jax.named_call(build(layer, path + layer.name + "."), name=layer.name)

    def build(layer: Layer, here: str) -> Callable[[Array], Array]:
        match layer:
            case Conv(_, inputs, features, kernel, stride, padding, groups, bias):
                conv = eqx.filter_eval_shape(
                    eqx.nn.Conv2d,
                    inputs,
                    features,
                    kernel,
                    stride,
                    padding,
                    groups=groups,
                    use_bias=bias,
                    key=key,
                )
                values = {"weight": params[here + "weight"]}
                if bias:
                    values["bias"] = params[here + "bias"][:, None, None]
                return replace(conv, values)
            case BatchNorm(_, features):
                dtype = params[here + "weight"].dtype
                new = eqx.nn.make_with_state(eqx.nn.BatchNorm)
                norm, state = new(features, "batch", inference=True, mode="batch", dtype=dtype)
                moments = params[here + "running_mean"], params[here + "running_var"]
                assert norm.batch_state_index is not None
                state = state.set(norm.batch_state_index, moments)
                norm = replace(norm, {key: params[here + key] for key in ("weight", "bias")})
                return lambda x: norm(x, state)[0]
            case Dense(_, inputs, features):
                dense = eqx.filter_eval_shape(eqx.nn.Linear, inputs, features, key=key)
                return replace(dense, {key: params[here + key] for key in ("weight", "bias")})
            case Residual():
                inside = {
                    sub: module(sub, here) for sub in layer.main + layer.shortcut + layer.after
                }
                return lambda x: residual(layer, x, lambda sub, x: inside[sub](x))
            case MaxPool(_, size, stride, padding):
                return eqx.nn.MaxPool2d(size, stride, padding)
            case AvgPool(_, size):
                return eqx.nn.AvgPool2d(size, size)
            case Mean():
                return partial(jnp.mean, axis=(1, 2))
            case Flatten():
                return jnp.ravel
            case _:
                return partial(parameter_free, layer)

    key = jax.random.key(0)
    modules = {layer: module(layer, "") for layer in net}
    return jax.vmap(lambda x: run(net, x.transpose(2, 0, 1), lambda layer, x: modules[layer](x)))


def replace(module: Any, values: dict[str, Array]) -> Any:
    """Return an Equinox module with other values."""
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in values], module, list(values.values())
    )


class HaikuBlock(hk.Module):
    def __init__(self, block: Residual):
        super().__init__(block.name)
        self.block = block

    def __call__(self, x: Array) -> Array:
        return residual(self.block, x, haiku_layer)


def haiku_layer(layer: Layer, x: Array) -> Array:
    """Call one layer as a Haiku module."""
    match layer:
        case Conv(name, _, features, kernel, stride, padding, groups, bias):
            return hk.Conv2D(
                features,
                kernel,
                stride,
                padding=padding,
                feature_group_count=groups,
                with_bias=bias,
                name=name,
            )(x)
        case BatchNorm(name):
            return hk.BatchNorm(True, True, decay_rate=0.9, name=name)(x, is_training=False)
        case Dense(name, _, features):
            return hk.Linear(features, name=name)(x)
        case Residual():
            return HaikuBlock(layer)(x)
        case _:
            with jax.named_scope(layer.name):
                return parameter_free(layer, x)


def haiku(net: Net, params: Params) -> Callable[[Array], Array]:
    """Build the network in Haiku."""
    names = {"kernel": "w", "bias": "b"}
    moments = {"mean": "~/mean_ema", "var": "~/var_ema"}
    haiku_params: dict[str, dict[str, Array]] = {}
    state: dict[str, dict[str, Array]] = {}
    flat = walk(net, params)
    for (*path, name), value in flat.items():
        module = "/".join(path)
        if name in moments:
            average = value[None, None, None]
            state[f"{module}/{moments[name]}"] = {
                "average": average,
                "hidden": average,
                "counter": jnp.ones((), int),
            }
        elif (*path, "scale") in flat:
            rename = {"scale": "scale", "bias": "offset"}
            haiku_params.setdefault(module, {})[rename[name]] = value[None, None, None]
        else:
            haiku_params.setdefault(module, {})[names[name]] = value
    model = hk.transform_with_state(lambda x: run(net, x, haiku_layer))
    return lambda x: model.apply(haiku_params, state, None, x)[0]


FRAMEWORKS: dict[str, Callable[[Net, Params], Callable[[Array], Array]]] = {
    "linen": linen,
    "nnx": flax_nnx,
    "equinox": equinox,
    "haiku": haiku,
}
