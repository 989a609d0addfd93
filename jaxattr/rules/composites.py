"""Composites: which relevance rule stands where in a network, as data."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jax.typing import ArrayLike

from jaxattr.rules import lrp
from jaxattr.rules.contributions import LayerRule
from jaxattr.rules.relevance import gated, normalization, passing, proportional
from jaxattr.tracing.local import Rule, plain, refuse

_NONE = MappingProxyType({})


class Composite(NamedTuple):
    """Rules by what stands there, and by how far from the image or the logits it stands.

    Attributes:
        convolution: for convolutions: layers that use their weights at several positions, also
            those that are written as a dense layer or an `einsum` over pixels or patches.
        dense: for all other layers, also a convolution whose output is one pixel.
        first: for the layers that see the image, with no other layer before them; None for none.
        last: for the layers whose output no other layer sees.
        scale: for a scale and shift that follows no layer, such as a BatchNorm behind a ReLU.
        mean: for sums, means, average pools and resizing, which are layers of fixed weights.
        sum: for residual sums.
        activation: for activations.
        product: for products of two values that depend on the image; by default gates pass
            relevance to their signal.
        max_pool: for max-pools; by default relevance goes to the winner.
        statistic: for what a normalization or a softmax computes; refused by default.
        unknown: for operations that the reader does not know; refused by default.
        layers: for convolutions and dense layers by name, as `layer=` takes it: `"layer4"`, or
            `"layer4.0.conv1"`. The last name that fits counts, before all slots above.
        ops: for any operation by its function or primitive, as `jaxattr.sites` names it: `"silu"`.
            These count before everything else.
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
    max_pool: Rule = plain
    statistic: Rule = normalization
    unknown: Rule = refuse
    layers: Mapping[str, LayerRule] = _NONE
    ops: Mapping[str, Rule] = _NONE


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
    slots = ("convolution", "dense", "first", "last")
    found = {name: getattr(composite, name) for name in slots}
    named = {name: change(rule) for name, rule in composite.layers.items()}
    changes = {name: change(rule) for name, rule in found.items() if rule is not None}
    return composite._replace(layers=named, **changes)
