"""Composites: which relevance rule stands where in a network, as data."""

from collections.abc import Callable, Container
from typing import NamedTuple

from jax.typing import ArrayLike

from jaxattr.rules import lrp
from jaxattr.rules.contributions import LayerRule, affine
from jaxattr.rules.relevance import gated, is_resizing, normalization, passing, proportional
from jaxattr.tracing.local import Local, Rule, refuse
from jaxattr.types import Array


class Composite(NamedTuple):
    """Rules by what stands there, and by how far from the image or the logits it stands.

    Attributes:
        convolution: for convolutions.
        dense: for dense layers, `einsum` and any `dot_general`.
        first: for the layers that see the image, with no other layer before them; None for none.
        last: for the layers whose output no other layer sees.
        scale: for a scale and shift that follows no layer, such as a BatchNorm behind a ReLU.
        mean: for sums, means, average pools and resizing, which are layers of fixed weights.
        sum: for residual sums.
        activation: for activations.
        product: for products of two values that depend on the image; by default gates pass
            relevance to their signal.
    """

    convolution: LayerRule
    dense: LayerRule
    first: LayerRule | None = None
    last: LayerRule | None = None
    scale: LayerRule = lrp.pass_()
    mean: Rule = proportional()
    sum: Rule = proportional()
    activation: Rule = passing
    product: Rule = gated


def uniform(rule: LayerRule, *, first: LayerRule | None = None) -> Composite:
    """Use one rule at every layer, another one at the first if there is one.

    Args:
        rule: for convolutions and dense layers.
        first: for the layers that see the image.
    """
    return Composite(rule, rule, first)


def epsilon_plus(*, epsilon: float = 1e-6) -> Composite:
    """z+ for convolutions, epsilon for dense layers."""
    return Composite(lrp.z_plus(), lrp.epsilon(epsilon))


def epsilon_plus_flat(*, epsilon: float = 1e-6) -> Composite:
    """z+ for convolutions, epsilon for dense layers, flat where the image enters.

    Reference:
        Kohlbrenner et al., Towards best practice in explaining neural network decisions with LRP,
        IJCNN 2020.
    """
    return epsilon_plus(epsilon=epsilon)._replace(first=lrp.flat())


def epsilon_gamma_box(
    low: ArrayLike, high: ArrayLike, *, epsilon: float = 1e-6, gamma: float = 0.25
) -> Composite:
    """Gamma for convolutions, epsilon for dense layers, z-box where the image enters.

    Args:
        low: the smallest value that a pixel can have, as the model takes it.
        high: the largest.
        epsilon: of the dense layers.
        gamma: of the convolutions.

    Reference:
        Montavon et al., Layer-wise relevance propagation: an overview, 2019, section 10.3.
    """
    return Composite(lrp.gamma(gamma), lrp.epsilon(epsilon), lrp.z_box(low, high))


def epsilon_alpha2_beta1(*, epsilon: float = 1e-6) -> Composite:
    """Alpha-beta with alpha 2 and beta 1 for convolutions, epsilon for dense layers."""
    return Composite(lrp.alpha_beta(2.0, 1.0), lrp.epsilon(epsilon))


def epsilon_alpha2_beta1_flat(*, epsilon: float = 1e-6) -> Composite:
    """Alpha 2, beta 1 for convolutions, epsilon for dense layers, flat where the image enters."""
    return epsilon_alpha2_beta1(epsilon=epsilon)._replace(first=lrp.flat())


def changed(composite: Composite, change: Callable[[LayerRule], LayerRule]) -> Composite:
    """Change the rules of all layers with weights.

    Args:
        composite: what to change.
        change: such as `lrp.without_bias` or `lrp.conserving`.
    """
    layers = ("convolution", "dense", "first", "last")
    rules = {name: getattr(composite, name) for name in layers}
    return composite._replace(**{k: change(r) for k, r in rules.items() if r is not None})


def rules(composite: Composite, first: Container[int], last: Container[int]) -> dict[str, Rule]:
    """Return the rules of a composite for `with_rules`.

    Args:
        composite: what stands where.
        first: the positions of the layers that see the image.
        last: the positions of the layers that no other layer sees.
    """

    def at_layer(local: Local) -> Callable[..., Array]:
        position, op = local.site.position, local.site.op
        if is_resizing(local.equations):
            return composite.mean(local)
        if composite.first is not None and position in first:
            return affine(composite.first)(local)
        if composite.last is not None and position in last:
            return affine(composite.last)(local)
        others = {"conv_general_dilated": composite.convolution, "dot_general": composite.dense}
        return affine(others.get(op, composite.scale))(local)

    return {
        "affine": at_layer,
        "activation": composite.activation,
        "linear": composite.mean,
        "sum": composite.sum,
        "product": composite.product,
        "statistic": normalization,
        "unknown": refuse,
    }
