"""Contrastive excitation backprop: what excites a class less what excites its opposite."""

from jaxattr.facts import method
from jaxattr.methods.excitation_backprop import (
    EXCITATION,
    map_alone,
    map_and_layers,
    relevance_at,
)
from jaxattr.portable import portable
from jaxattr.rules.contributions import Handed, negative_terms, positive_terms
from jaxattr.rules.propagation import Relevance
from jaxattr.rules.relevance import divide
from jaxattr.tracing.taps import Split
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array, Attribution, Explanation, Fun, Grid, Layer


def contrast(r: Array, x: Array, layer: Weighted) -> Handed:
    """Take what inhibits, the shares of the same layer with its weights negated, from what excites.

    The rule of the classifier in contrastive excitation backprop (Zhang et al., section 3.3). What
    it hands down sums to zero.
    """
    p, n = positive_terms(layer, x), negative_terms(layer, x)
    with_p, with_n = divide(r, p.total), divide(r, n.total)
    return Handed(p.back(with_p) - n.back(with_n), r - with_p * p.total + with_n * n.total)


_ATTENDING = EXCITATION.attending
CONTRASTIVE = EXCITATION._replace(
    last=contrast, attending=_ATTENDING and _ATTENDING._replace(last=contrast)
)
"""Contrastive excitation backprop."""


@portable
def contrastive_excitation_backprop_details(
    f: Fun, *, layer: Layer | None = None, grid: Grid = None
) -> Explanation[Relevance]:
    """Return the map of `contrastive_excitation_backprop` at the image and at every layer.

    Args:
        f: as for `contrastive_excitation_backprop`.
        layer: as for `excitation_backprop_details`.
        grid: as for `excitation_backprop`.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.
    """
    return map_and_layers(f, CONTRASTIVE, layer, grid)


@method(
    cost="as excitation_backprop",
    family="relevance",
    details=contrastive_excitation_backprop_details,
)
def contrastive_excitation_backprop(
    f: Fun, *, layer: Layer | None = None, grid: Grid = None
) -> Attribution:
    r"""Attribute what excites the target less what excites its opposite.

    The opposite is a target whose weights are negated: at the classifier

    $$P_j = \sum_k \Big(\frac{z_{jk}^+}{z_k^+} - \frac{z_{jk}^-}{z_k^-}\Big) P_k$$

    and below it `excitation_backprop`, which is linear in `P`. So the contrast is the difference of
    the two maps, wherever below the classifier it is taken. Laws: that; the map sums to zero where
    every winner has an input that excites it.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, ending in a layer with weights.
        layer: as in `excitation_backprop`.
        grid: as in `excitation_backprop`.

    Returns:
        An attribution as in `excitation_backprop`, of both signs; `jaxattr.maps.positive` keeps
        the evidence for the target, the map of the paper.

    Raises:
        UnsupportedOperation: as `excitation_backprop` does.
        ValueError: as `excitation_backprop` does.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.reshape(1, 3) @ jnp.array([[1.0], [3.0], [-5.0]])
        >>> contrastive_excitation_backprop(f)(jnp.ones((1, 1, 3, 1)), jnp.array([0])).ravel()
        Array([ 0.25,  0.75, -1.  ], dtype=float32)

    Reference:
        Zhang, Lin, Brandt, Shen and Sclaroff, Top-down neural attention by excitation backprop,
        ECCV 2016.

    Differs from TorchRay, which needs the layer of the contrast named, and drops what is negative.
    """
    return map_alone(f, CONTRASTIVE, layer, grid)


def contrast_at(halves: Split, x: Array, target: Array) -> Array:
    """Return contrastive excitation backprop at the layer where a function was cut."""
    return relevance_at(halves, CONTRASTIVE, x, target)
