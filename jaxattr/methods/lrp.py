"""Layer-wise relevance propagation: a logit shared out among the pixels, layer by layer."""

from typing import Any

from jaxattr.contract import attribution, same_options
from jaxattr.facts import method
from jaxattr.portable import portable
from jaxattr.rules import lrp as layer_rules
from jaxattr.rules.composites import Composite, attn_lrp_vit, bounded, changed, epsilon_plus
from jaxattr.rules.propagation import Relevance, propagate, propagate_layers
from jaxattr.types import Attribution, Explanation, Fun

DEFAULT = epsilon_plus()._replace(attending=attn_lrp_vit())
"""z+ for convolutions, epsilon for dense layers; AttnLRP for what attends."""


@portable
def lrp_details(
    f: Fun,
    *,
    composite: Composite = DEFAULT,
    bias: bool = True,
    conserve: bool = False,
) -> Explanation[Relevance]:
    """Return relevance at the image and at every layer, by the options of `lrp`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        composite: as for `lrp`.
        bias: as for `lrp`.
        conserve: as for `lrp`.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`; `layers` holds the relevance of the output
        of every operation that `jaxattr.sites` lists, from the logits to the image, of the shape
        that the operation gives it.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.mean((1, 2)) @ jnp.array([[2.0], [-1.0]])
        >>> list(lrp_details(f)(jnp.ones((1, 2, 2, 2)), jnp.array([0])).layers)
        ['dot_general', 'div', 'reduce_sum']
    """
    made = composite_of(composite, bias, conserve)
    return attribution(f, lambda x, target, key: propagate_layers(f, made, x, target))


@method(
    cost="1 forward, 1 to 4 forward and backward per layer",
    family="relevance",
    details=lrp_details,
)
@same_options(lrp_details)
def lrp(f: Fun, **options: Any) -> Attribution:
    r"""Attribute by layer-wise relevance propagation.

        R_j = sum_k z'_jk / (sum_j z'_jk + b'_k) R_k,    at the logits R_t = f(x)_t, 0 elsewhere

    where `z'` is what a rule of `jaxattr.rules.lrp` reads of the contributions `a_j w_jk` of a
    layer. A layer is a convolution, a dense layer or an `einsum`, together with the bias and the
    BatchNorm that follow it along the data flow, whatever their order and sign. Activations pass
    relevance on, a max-pool gives it to the winner, sums and average pools split it in proportion.
    Of a product of values that depend on `x`, the factor is held (`jaxattr.freeze` tells which side
    that is) and the signal takes all: through a gate, such as that of squeeze and excitation, and
    through LayerNorm, GroupNorm, RMSNorm and the like, by the epsilon rule with the deviation held
    and the mean subtracted.

    A function with attention is explained by AttnLRP instead, with gamma 0.05 in its layers and
    0.25 in the patches (`jaxattr.rules.composites.attn_lrp_vit`): attention weights get relevance
    too, half of each matrix product's, and the softmax passes it by its Taylor expansion. Without
    shares of biases (`bias=False`, `conserve=True`) residual sums split by magnitude there, and
    normalizations pass relevance on: in proportion, shares would be unbounded
    (`docs/relevance.md`).

    Laws: with `conserve`, relevance sums to the logit at every layer, but for what a class token
    and the softmax of AttnLRP keep (`jaxattr.rules.relevance.taylor` says how much; the composite
    `cp_lrp_vit` has none); the same map for every spelling of a network; with epsilon 0
    everywhere, in a network of ReLUs, gradient times input.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        composite: which rule stands where: one of `jaxattr.rules.composites`, or your own
            `Composite`. By default z+ for convolutions and epsilon for dense layers, and AttnLRP
            where there is attention.
        bias: whether a bias, and the shift of a BatchNorm, takes a share of the relevance, as in
            the papers. It is lost to the image then.
        conserve: whether what biases and stabilizers take, and what reaches an output to which no
            input contributes, is spread evenly over the inputs of that output.

    Returns:
        An attribution of the shape of `x`. Cost: one forward pass, and per layer as many
        convolutions and transposed ones as the rule has terms: z+ one of each for inputs that are
        not negative, gamma and alpha-beta two (`docs/relevance.md`).

    Raises:
        UnsupportedOperation: if `f` contains what no rule covers: a softmax of the logits, a
            product in which no factor can be told, a sort.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.array([[2.0, 0.0], [-1.0, 1.0]])
        >>> f = lambda x: x.reshape(-1, 2) @ w
        >>> x = jnp.array([3.0, 1.0]).reshape(1, 1, 2, 1)
        >>> lrp(f)(x, jnp.array([0])).ravel().round(2).tolist()
        [6.0, -1.0]

    Reference:
        Bach et al., On pixel-wise explanations for non-linear classifier decisions by layer-wise
        relevance propagation, PLOS ONE 2015.

    Differs from zennit, whose rules need a canonizer for every model family, or BatchNorms join the
    wrong layer and relevance doubles at residual sums; and from Captum, which has no rule for
    residual sums. Without biases, gamma tells positive outputs from negative ones without them too.
    """
    made = composite_of(**options)
    return attribution(f, lambda x, target, key: propagate(f, made, x, target))


def composite_of(
    composite: Composite = DEFAULT, bias: bool = True, conserve: bool = False
) -> Composite:
    """Return the composite that the options of `lrp` mean."""
    if not isinstance(composite, Composite):
        raise ValueError(
            f"composite is {composite!r}; expected a Composite, such as the one that "
            "jaxattr.rules.composites.epsilon_plus() returns"
        )
    if not bias:
        composite = bounded(changed(composite, layer_rules.without_bias))
    if conserve:
        composite = bounded(changed(composite, layer_rules.conserving))
    return composite
