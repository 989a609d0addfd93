"""Contrastive RSP: relevance handed down from contrastive excitation backprop."""

from collections.abc import Callable
from typing import Any

from jaxattr.contract import attribution, one_by_one
from jaxattr.facts import method
from jaxattr.methods.contrastive_excitation_backprop import contrast_at
from jaxattr.methods.rsp import Rules, handed_down
from jaxattr.portable import portable
from jaxattr.rules.propagation import Relevance, propagate, propagate_layers
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Explanation, Fun, Layer


@portable
def contrastive_rsp_details(
    f: Fun, *, layer: Layer | None = None, purge: bool = True, pointwise: bool = False
) -> Explanation[Relevance]:
    """Return the relevance of `contrastive_rsp` at the image and up to the feature layer.

    Args:
        f: as for `contrastive_rsp`.
        layer: as for `contrastive_rsp`.
        purge: as for `contrastive_rsp`.
        pointwise: as for `contrastive_rsp`.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.
    """
    return _attribution(f, propagate_layers, layer, Rules(purge, pointwise))


@method(
    cost="as excitation_backprop, then rsp", family="relevance", details=contrastive_rsp_details
)
def contrastive_rsp(
    f: Fun, *, layer: Layer | None = None, purge: bool = True, pointwise: bool = False
) -> Attribution:
    """Attribute as `rsp` does, starting from contrastive excitation backprop.

    `F` is the map of `contrastive_excitation_backprop` at the feature layer, of all its channels:
    hostile is all evidence against the target. No class need be named.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `rsp`.
        purge: as for `rsp`.
        pointwise: as for `rsp`.

    Returns:
        An attribution of the shape of `x`. Cost: as for `rsp`.

    Raises:
        UnsupportedOperation: as for `rsp`, in all of `f`.
        ValueError: if the layer is unknown; the known ones are listed.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x @ jnp.eye(2))
        >>> x = jnp.eye(2).reshape(1, 1, 2, 2)  # a pixel of class 0, a pixel of class 1
        >>> f = lambda x: features(x).mean((1, 2)) @ jnp.array([[1.0, -1.0], [-1.0, 1.0]])
        >>> a = contrastive_rsp(f, layer="features")(x, jnp.array([0]))
        >>> a.sum(-1).ravel()
        Array([ 2., -1.], dtype=float32)

    Reference:
        Nam, Choi and Lee, Interpreting deep neural networks with relative sectional propagation by
        analyzing comparative gradients and hostile activations, AAAI 2021.
    """
    return _attribution(f, propagate, layer, Rules(purge, pointwise))


def _attribution(f: Fun, run: Callable[..., Any], layer: Layer | None, rules: Rules) -> Any:
    def one(x: Array, target: Array) -> Any:
        halves = split(f, x[None], layer=layer)
        start = contrast_at(halves, x[None], target[None])
        return handed_down(run, halves, x, start, rules)

    return attribution(f, lambda x, target, key: one_by_one(f, one, x, target))
