"""Any method elsewhere than from the image to the logits: at a layer, of a unit, of many inputs."""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.contract import check_images, resolve_baseline
from jaxattr.portable import portable
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Baseline, Explanation, Fun, Key, Layer

Make: TypeAlias = Callable[..., Attribution]
"""A method, or a `functools.partial` of one: from a classifier to an attribution."""


@portable
def inside(
    method: Make, f: Fun, *, layer: Layer, baseline: Baseline | None = None
) -> Explanation[Array]:
    """Attribute to the value of a layer instead of the image, by any method.

        a = A_g(h(x)),    f = g o h

    `g`, the rest of the network, is a classifier of the layer's value; what bypasses the layer is
    held at the image. So `inside(jaxattr.integrated_gradients, f, layer="layer4", baseline=0.0)` is
    layer integrated gradients, along the line from the layer's value at the baseline; with
    `jaxattr.deeplift` it is layer DeepLIFT, and with `jaxattr.saliency` the layer's gradient. Law:
    what sums to `f(x)[t] - f(x')[t]` at the image does so at a layer that nothing bypasses.

    Args:
        method: from a classifier to an attribution of the shape of its input; with its options,
            `functools.partial(jaxattr.integrated_gradients, steps=20)`.
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a module path such as `"layer4"`, a `jax.named_scope` or a `checkpoint_name`, its
            position in `jaxattr.sites`, or the module itself (`jaxattr.types.Layer`).
        baseline: an image, or images, whose value at the layer is the baseline of a method that
            takes one; by default the method's own, of the layer's values.

    Returns:
        `(x, target, key=None)` to a map of the layer's shape, its axes as the network has them.

    Raises:
        ValueError: if the layer is unknown (the known ones are listed), or if the method shows the
            network more images than it is given, as `jaxattr.occlusion` does, while `f` is cut.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> @jax.named_scope("pooled")
        ... def pooled(x):
        ...     return x.sum((1, 2))
        >>> f = lambda x: jax.nn.relu(pooled(x)) @ jnp.array([[2.0], [-1.0]])
        >>> attribute = inside(jaxattr.input_x_gradient, f, layer="pooled")
        >>> attribute(jnp.ones((1, 2, 2, 2)), jnp.array([0])).tolist()
        [[8.0, -4.0]]
    """

    def attribute(x: Array, target: Array, *, key: Key | None = None) -> Array:
        x = jnp.asarray(x)
        check_images(x)
        halves = split(f, x, layer=layer)
        value = halves.before(x)
        pack, unpack = _packing(value)
        start = {} if baseline is None else {"baseline": resolve_baseline(baseline, x)}
        options = {name: pack(halves.before(image)) for name, image in start.items()}
        rest = lambda v: halves.after(unpack(v), x)
        return unpack(method(rest, **options)(pack(value), target, key=key))

    return attribute


def channels(f: Fun, *, layer: Layer, at: tuple[int, int] | None = None) -> Fun:
    """Make a classifier of the channels of a layer, so that any method explains a unit.

        g(x)_c = mean_ij h(x)_ijc,    or h(x)_ijc at one position

    Args:
        f: images `(B, H, W, C)` to anything.
        layer: as for `inside`, with rows, columns and channels, or channels alone.
        at: row and column of the unit; by default a channel is averaged over its positions.

    Returns:
        Images to logits `(B, channels)`: the class is the channel.

    Raises:
        ValueError: if the layer is unknown, or has other axes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return 3 * x
        >>> g = channels(lambda x: features(x).sum((1, 2)), layer="features", at=(0, 1))
        >>> jaxattr.saliency(g)(jnp.ones((1, 1, 2, 2)), jnp.array([1])).tolist()
        [[[[0.0, 0.0], [0.0, 3.0]]]]
    """

    def g(x: Array, /) -> Array:
        halves = split(f, x, layer=layer)
        value = halves.before(x)
        if value.ndim == 2:
            return value
        maps = halves.channels_last(value)
        return maps.mean((1, 2)) if at is None else maps[:, at[0], at[1]]

    return g


@portable
def several_inputs(
    method: Make, f: Callable[[Any], Array], *, baselines: Any = None
) -> Explanation[Any]:
    """Attribute to several inputs at once, by any method of gradients, paths or relevance.

    The inputs are laid side by side as one, so that completeness holds of all of them together.
    What is not to be explained, such as tokens or a mask, stays an argument that `f` closes over.
    Law: of one image it is the method itself.

    Args:
        method: as for `inside`.
        f: a dict, tuple or other pytree of arrays `(B, ...)` of one float dtype to logits `(B, K)`.
        baselines: a pytree like the inputs, for a method that takes a baseline.

    Returns:
        `(x, target, key=None)`, where `x` is the inputs, to maps, a pytree like the inputs.

    Raises:
        ValueError: if the inputs have several dtypes, or batches.

    Example:
        >>> import jax.numpy as jnp, jaxattr
        >>> f = lambda both: both["image"].sum((1, 2)) * both["scale"]
        >>> attribute = several_inputs(jaxattr.input_x_gradient, f)
        >>> inputs = {"image": jnp.ones((1, 1, 2, 1)), "scale": jnp.full((1, 1), 3.0)}
        >>> {k: a.ravel().tolist() for k, a in attribute(inputs, jnp.array([0])).items()}
        {'image': [3.0, 3.0], 'scale': [6.0]}
    """

    def attribute(x: Any, target: Array, *, key: Key | None = None) -> Any:
        x = jax.tree.map(jnp.asarray, x)
        pack, unpack = _packing(x)
        options = {} if baselines is None else {"baseline": pack(baselines)}
        return unpack(method(lambda v: f(unpack(v)), **options)(pack(x), target, key=key))

    return attribute


class _Packing(NamedTuple):
    pack: Callable[[Any], Array]
    unpack: Callable[[Array], Any]


def _packing(like: Any) -> _Packing:
    """Return how a pytree of arrays `(B, ...)` becomes one image, and back; an image stays."""
    leaves, tree = jax.tree.flatten(like)
    if len({(a.shape[:1], a.dtype) for a in leaves}) != 1 or not leaves[0].shape:
        told = ", ".join(f"{a.dtype}{list(a.shape)}" for a in leaves)
        raise ValueError(f"the inputs are {told}; expected arrays of one float dtype and batch")
    if len(leaves) == 1 and leaves[0].ndim == 4:
        return _Packing(lambda a: jax.tree.leaves(a)[0], lambda v: jax.tree.unflatten(tree, [v]))
    ends = list(accumulate(math.prod(a.shape[1:]) for a in leaves))

    def pack(a: Any) -> Array:
        flat = [jnp.reshape(part, (leaves[0].shape[0], -1)) for part in jax.tree.leaves(a)]
        return jnp.concatenate(flat, 1)[:, None, :, None]

    def unpack(v: Array) -> Any:
        parts = jnp.split(v[:, 0, :, 0], ends[:-1], 1)
        shaped = [p.reshape(-1, *a.shape[1:]) for p, a in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(tree, shaped)

    return _Packing(pack, unpack)
