"""Relative sectional propagation: the two signs of relevance, each by the weights that carry it.

The rules see one image at a time.
"""

import jax
import jax.numpy as jnp

from jaxattr.rules.composites import Composite
from jaxattr.rules.contributions import Handed, LayerRule, terms
from jaxattr.rules.relative import image_box, shifted
from jaxattr.rules.relevance import divide, proportional
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array


def purged(r: Array, channels: tuple[int, ...]) -> Array:
    """Zero every unit whose sign is not that of the sum over channels at its position."""
    return jnp.where(r * r.sum(channels, keepdims=True) > 0, r, 0)


def sectional(r: Array, x: Array, layer: Weighted) -> Handed:
    r"""Hand each sign of relevance down by weights made for it.

    For the positive part $P$ of $R$, with the layer as a bilinear map $f(x, w)$,

    $$\nu = \mathrm{vjp}_w[f(x, w)](P), \qquad
    R^+ = x \odot \mathrm{vjp}_x[f(x, \nu)]\big(P / f(x, \nu)\big)$$

    and likewise for the negative part. Where the window is larger than one position both count
    twice, and every active input gives up the same amount, so that the sum is what it was.
    """
    x = jnp.abs(x)  # no different where a ReLU came before
    layer = layer._replace(apply=layer.apply_own)
    _, weights = jax.vjp(lambda w: layer.apply(x, w), layer.weight)

    def section(r: Array) -> Array:
        z = terms(layer, (x, weights(r)[0]))
        return z.back(divide(r, z.total))

    down = section(jnp.maximum(r, 0)) - section(jnp.maximum(-r, 0))
    if layer.window == 1:
        return Handed(down, jnp.zeros_like(r))
    return shifted(r, 2 * down, x > 0)


def purging(rule: LayerRule) -> LayerRule:
    """Purge relevance before a rule hands it down."""

    def purges(r: Array, x: Array, layer: Weighted) -> Handed:
        kept = purged(r, layer.channels)
        down, rest = rule(kept, x, layer)
        return Handed(down, rest + r - kept)

    return purges


POSITIVE = proportional(lambda a: jnp.maximum(a, 0), stabilizer=0.0)

SECTIONAL = Composite(sectional, sectional, first=image_box, mean=POSITIVE, sum=POSITIVE)
"""Relative sectional propagation, of one image."""
