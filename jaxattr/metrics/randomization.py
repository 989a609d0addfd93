"""Sanity checks: randomize the parameters of a model, layer by layer, and compare the maps."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.types import Array, Key

Initializer: TypeAlias = Callable[[Key, Array], Array]
"""From a key and a parameter array to the one that replaces it."""


def normal(*, std: float | None = None) -> Initializer:
    """Draw parameters from a normal distribution.

    Args:
        std: its standard deviation around 0; by default each parameter array's own mean and
            standard deviation.

    Returns:
        A function of a key and a parameter array to the one that replaces it.
    """

    def draw(key: Key, value: Array) -> Array:
        noise = jax.random.normal(key, value.shape, value.dtype)
        return noise * std if std is not None else value.mean() + value.std() * noise

    return draw


def permutation(key: Key, value: Array) -> Array:
    """Shuffle all values of a parameter array, which keeps their distribution."""
    return jax.random.permutation(key, value.ravel()).reshape(value.shape)


def randomize_parameters(
    parameters: Any, layers: Sequence[str], *, key: Key, initializer: Initializer | None = None
) -> Any:
    """Randomize the parameters of some layers.

    For the cascade of the paper, randomize more and more layers with one key, from the last down:

        stages = [randomize_parameters(p, order[: i + 1], key=key) for i in range(len(order))]

    and compare the maps of each stage with those of the trained model, by `rank_correlation` and
    `ssim`. Laws: a layer gets the same values whichever others are randomized with it, so that each
    stage contains the one before; all other parameters are unchanged.

    Args:
        parameters: any pytree of arrays, such as `nnx.state(model, nnx.Param)`, a Flax variable
            dict, an Equinox module or a state dict. Leave running statistics out, of which a
            variance must stay positive.
        layers: paths of layers in the tree, keys joined by dots: `"layer4.0.conv1"`, or
            `"layer4"` for all that it contains.
        key: of the draws.
        initializer: what replaces a parameter, by default `normal()`; also
            `normal(std=0.01)`, `permutation`, or an initializer of JAX behind
            `lambda key, value: init(key, value.shape, value.dtype)`.

    Returns:
        The tree with those parameters replaced. Arrays that are not of a float dtype stay.

    Raises:
        ValueError: if the tree has no such layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> p = {"conv": {"kernel": jnp.arange(3.0)}, "fc": {"kernel": jnp.arange(3.0)}}
        >>> q = randomize_parameters(p, ["fc"], key=jax.random.key(0))
        >>> bool((q["conv"]["kernel"] == p["conv"]["kernel"]).all())
        True
        >>> bool((q["fc"]["kernel"] == p["fc"]["kernel"]).any())
        False

    Reference:
        Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018.
    """
    initializer = normal() if initializer is None else initializer
    leaves, tree = jax.tree.flatten_with_path(parameters)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    for layer in layers:
        if not any(_within(name, layer) for name in names):
            raise ValueError(f"the parameters have no layer {layer!r}; they have {_known(names)}")

    def replaced(index: int, value: Any) -> Any:
        chosen = any(_within(names[index], layer) for layer in layers)
        # a tree may also hold values that are not arrays
        if not chosen or not jnp.issubdtype(getattr(value, "dtype", np.bool_), jnp.floating):
            return value
        return initializer(jax.random.fold_in(key, index), jnp.asarray(value))

    return jax.tree.unflatten(tree, [replaced(i, value) for i, (_, value) in enumerate(leaves)])


def _within(name: str, layer: str) -> bool:
    return name == layer or name.startswith(layer + ".")


def _known(names: Sequence[str]) -> str:
    layers = list(dict.fromkeys(name.removesuffix(".value").rpartition(".")[0] for name in names))
    return ", ".join(layers[:12]) + (f" and {len(layers) - 12} more" if len(layers) > 12 else "")
