"""Composites: which relevance rule stands where in a network, as data."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr.rules import lrp
from jaxattr.rules.contributions import LayerRule
from jaxattr.rules.relevance import gated, halved, normalization, passing, proportional, taylor
from jaxattr.structures.factors import HELD, Hold
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
        norm: for what is scaled by a factor that is held, with the scales and shifts that follow:
            what a normalization divides by its deviation, what a gate multiplies.
        attention: for a matrix product with a factor that is held: the values of attention.
        softmax: for a softmax that is not held; refused by default.
        statistic: for what a normalization computes and is not held; refused by default.
        unknown: for operations that the reader does not know; refused by default.
        attending: what takes the place of all of this where a function attends, that is, multiplies
            matrices of which one is held.
        layers: for convolutions and dense layers by name, as `layer=` takes it: `"layer4"`, or
            `"layer4.0.conv1"`. The last name that fits counts, before all slots above.
        hold: which factors of products are held and so get no relevance, as for `jaxattr.freeze`.
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
    norm: LayerRule = lrp.detached()
    attention: LayerRule = lrp.epsilon()
    softmax: Rule = normalization
    statistic: Rule = normalization
    unknown: Rule = refuse
    layers: Mapping[str, LayerRule] = _NONE
    ops: Mapping[str, Rule] = _NONE
    hold: Hold = HELD
    attending: "Composite | None" = None


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


def attn_lrp(
    *, epsilon: float = 1e-6, gamma: float | None = None, patch_gamma: float | None = None
) -> Composite:
    """Rules for transformers in which attention weights get relevance too.

    Epsilon for layers, sums and normalizations, whose deviation is held; half of a matrix product's
    relevance to each factor; a Taylor expansion for the softmax. Biases keep their share.

    Args:
        epsilon: of all rules.
        gamma: for layers, the gamma rule in place of epsilon.
        patch_gamma: likewise for the layer that sees the image; as `gamma` by default.

    Reference:
        Achtibat et al., AttnLRP: attention-aware layer-wise relevance propagation for transformers,
        ICML 2024.
    """
    layer = lrp.epsilon(epsilon) if gamma is None else lrp.gamma(gamma, stabilizer=epsilon)
    first = None if patch_gamma is None else lrp.gamma(patch_gamma, stabilizer=epsilon)
    share = proportional(stabilizer=epsilon)
    return Composite(
        *(layer, layer, first),
        scale=lrp.epsilon(epsilon),
        mean=share,
        sum=share,
        product=halved(epsilon),
        norm=lrp.epsilon(epsilon),
        attention=lrp.epsilon(epsilon),
        softmax=taylor,
        hold=("norm",),
    )


def attn_lrp_vit() -> Composite:
    """Return `attn_lrp` as its authors found it best for vision transformers.

    Gamma 0.05 for dense layers, 0.25 for the patches.
    """
    return attn_lrp(gamma=0.05, patch_gamma=0.25)


def cp_lrp(
    *, epsilon: float = 1e-6, gamma: float | None = None, patch_gamma: float | None = None
) -> Composite:
    """Rules for transformers with attention held: all relevance goes to what is attended to.

    The rules of `attn_lrp` for everything else.

    Reference:
        Ali et al., XAI for transformers, ICML 2022.
    """
    made = attn_lrp(epsilon=epsilon, gamma=gamma, patch_gamma=patch_gamma)
    return made._replace(hold=("norm", "softmax"))


def cp_lrp_vit() -> Composite:
    """Return `cp_lrp` with gamma 0.05 for dense layers and 0.25 for the patches."""
    return cp_lrp(gamma=0.05, patch_gamma=0.25)


def changed(composite: Composite, change: Callable[[LayerRule], LayerRule]) -> Composite:
    """Change the rules of all layers, with weights or held factors.

    Args:
        composite: what to change.
        change: such as `lrp.without_bias` or `lrp.conserving`.
    """
    slots = ("convolution", "dense", "first", "last", "scale", "norm", "attention")
    found = {name: getattr(composite, name) for name in slots}
    named = {name: change(rule) for name, rule in composite.layers.items()}
    changes = {name: change(rule) for name, rule in found.items() if rule is not None}
    attending = composite.attending and changed(composite.attending, change)
    return composite._replace(layers=named, attending=attending, **changes)


def bounded(composite: Composite) -> Composite:
    """Bound the shares of rules for attention where biases have none.

    An entry `y = (x - m) / s + b` of a normalization has relevance in proportion to `y`. If `b`
    takes none of it, what arrives at `x - m` does not vanish with it, and its share `x / (x - m)`
    is unbounded; so are those of residual sums. So the mean is held, the identity rule of AttnLRP,
    and sums split by magnitude. Composites without a rule for a softmax stay as they are.
    """
    attending = composite.attending and bounded(composite.attending)
    if composite.softmax is normalization:
        return composite._replace(attending=attending)
    hold = tuple(dict.fromkeys((*composite.hold, "mean")))
    return composite._replace(sum=proportional(jnp.abs), hold=hold, attending=attending)
