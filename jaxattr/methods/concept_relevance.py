"""Concept relevance propagation: which channels of a layer matter, and what each sees."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.contract import attribution, check_positive
from jaxattr.image.order import largest
from jaxattr.methods.excitation_backprop import relevance_at
from jaxattr.methods.lrp import DEFAULT, composite_of
from jaxattr.portable import portable
from jaxattr.rules.composites import Composite
from jaxattr.rules.propagation import logit, propagate
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Explanation, Fun, Layer


class Concepts(NamedTuple):
    """The channels of a layer that an explanation goes through.

    Attributes:
        attribution: what goes through all of these channels, of the shape of `x`.
        maps: what goes through each, `(B, n, H, W, C)`.
        channels: their numbers, int `(B, n)`.
        relevance: the relevance of each at the layer, `(B, n)`.
    """

    attribution: Array
    maps: Array
    channels: Array
    relevance: Array


@portable
def concept_relevance(
    f: Fun,
    *,
    layer: Layer,
    count: int = 5,
    channels: Sequence[int] | None = None,
    composite: Composite = DEFAULT,
    bias: bool = True,
    conserve: bool = False,
) -> Explanation[Concepts]:
    """Find the channels of a layer that are most relevant, and a map of each (CRP).

        R(x | c) = the relevance of the pixels, of which R_l at layer l is kept in channel c alone

    Relevance goes from the logit to the layer as in `lrp`, and from there to the image once for
    each channel. What bypasses the layer is left out. Laws: the maps of all channels sum to the map
    of `lrp` where nothing bypasses the layer; with `conserve` a map sums to the relevance of its
    channel.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a module path such as `"layer4"`, a `jax.named_scope` or a `checkpoint_name`, its
            position in `jaxattr.sites`, or the module itself (`jaxattr.types.Layer`).
        count: how many channels there are, those of the highest relevance first.
        channels: numbers of channels instead, for all images.
        composite: as for `lrp`.
        bias: as for `lrp`.
        conserve: as for `lrp`.

    Returns:
        `(x, target) -> Concepts(attribution, maps, channels, relevance)`. Cost: that of `lrp`, and
        for each channel a backward pass from the layer to the image.

    Raises:
        UnsupportedOperation: as `lrp` does.
        ValueError: if the layer is unknown, or has not as many channels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[1.0], [4.0], [2.0]])
        >>> found = concept_relevance(f, layer="features", count=2)(
        ...     jnp.ones((1, 1, 1, 3)), jnp.array([0])
        ... )
        >>> found.channels.tolist(), found.maps.round(2).ravel().tolist()
        ([[1, 2]], [0.0, 4.0, 0.0, 0.0, 0.0, 2.0])

    Reference:
        Achtibat, Dreyer, Eisenbraun, Bosse, Wiegand, Samek and Lapuschkin, From attribution maps to
        human-understandable explanations through concept relevance propagation, Nature Machine
        Intelligence 2023.

    Differs from the authors' code in leaving out what bypasses the layer, such as the shortcut of a
    residual block, which goes on there with all its channels.
    """
    check_positive("count", count)
    made = composite_of(composite, bias, conserve)

    def explain(x: Array, target: Array, key: object) -> Concepts:
        halves = split(f, x, layer=layer)
        whole = relevance_at(halves, made, x, target, logit)
        axis = halves.channel_axis % whole.ndim
        total = jnp.moveaxis(whole, axis, -1).reshape(len(x), -1, whole.shape[axis]).sum(1)
        chosen = _chosen(total, channels, count, layer)

        def one(numbers: Array) -> Array:
            kept = jax.nn.one_hot(numbers, total.shape[-1], dtype=whole.dtype)
            shape = [n if i in (0, axis) else 1 for i, n in enumerate(whole.shape)]
            start = whole * kept.reshape(shape)
            return propagate(halves.before, made, x, target, lambda value, target: start)

        maps = jnp.moveaxis(lax.map(one, chosen.T), 0, 1)
        relevance = jnp.take_along_axis(total, chosen, 1)
        return Concepts(maps.sum(1), maps, chosen, relevance)

    return attribution(f, explain, has_rules=True)


def _chosen(total: Array, channels: Sequence[int] | None, count: int, layer: Layer) -> Array:
    """Return the numbers of channels, `(B, n)`."""
    there = total.shape[-1]
    wanted = range(count) if channels is None else channels
    if not all(0 <= c < there for c in wanted):
        raise ValueError(
            f"layer {layer!r} has {there} channels; expected count of at most {there}, or channels "
            f"from 0 to {there - 1}, and not {count if channels is None else list(channels)}"
        )
    if channels is None:
        return largest(total, count)
    return jnp.broadcast_to(jnp.array(channels, int), (total.shape[0], len(channels)))
