"""Relative attributing propagation: relevant and irrelevant units, told apart layer by layer.

What excites a relevant unit is relevant, and what inhibits it takes relevance too, in proportion to
its influence; then the same amount is taken from every active unit, so that the sum is what it was
and units of little influence end below zero. The rules see one image at a time.
"""

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, one_by_one
from jaxattr.facts import method
from jaxattr.portable import portable
from jaxattr.rules.composites import Composite
from jaxattr.rules.contributions import Handed, LayerRule, negative_terms, positive_terms, terms
from jaxattr.rules.lrp import pass_, z_box
from jaxattr.rules.propagation import Relevance, propagate, propagate_layers
from jaxattr.rules.relevance import divide, proportional, settled
from jaxattr.structures.factors import HELD
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array, Attribution, Explanation, Fun


def influence(r: Array, x: Array, layer: Weighted) -> Handed:
    """Share relevance by the magnitude of contributions: the rule of the classifier.

        R_j = sum_k |z_jk| / (sum_j |z_jk|) R_k

    The logit, its bias included, is shared among all that moved it either way.
    """
    z = terms(layer, (jnp.abs(x), jnp.abs(layer.weight)))
    c = divide(r, z.total)
    return Handed(z.back(c), r - c * z.total)


def relative(*, inhibited: bool) -> LayerRule:
    r"""Share relevance among what excites and what inhibits, then shift it.

    $$R_j = \sum_k \Big(\frac{z_{jk}^+}{z_k^+} + \frac{|z_k^-|}{z_k^+ + |z_k^-|}
    \frac{z_{jk}^-}{z_k^-}\Big) R_k - \psi\,1[R_j \ne 0]$$

    with one $\psi$ that makes the sum what it was.

    Args:
        inhibited: whether the first share of a *negative* relevance goes to what inhibits the unit
            instead of what excites it, as the authors have it in convolutions.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        p, n = positive_terms(layer, x), negative_terms(layer, x)
        first = jnp.minimum(r, 0) if inhibited else jnp.zeros_like(r)
        second = divide(-n.total, p.total - n.total) * r
        excited = p.back(divide(r - first, p.total))
        inhibits = n.back(divide(first + second, n.total))
        down = settled(excited + inhibits, jnp.abs(excited) + jnp.abs(inhibits))
        return shifted(r, down, down != 0)

    return rule


def shifted(r: Array, down: Array, active: Array) -> Handed:
    """Take the same amount from every active unit, so that `down` sums to what `r` does."""
    count = active.sum().astype(r.dtype)
    excess = divide(down.sum() - r.sum(), count)
    return Handed(down - jnp.where(active, excess, 0), jnp.where(count > 0, jnp.zeros_like(r), r))


def image_box(r: Array, x: Array, layer: Weighted) -> Handed:
    """Apply the z-box rule with the image's own minimum and maximum."""
    return z_box(x.min(), x.max())(r, x, layer)


BY_SIZE = proportional(jnp.abs, stabilizer=0.0)

RELATIVE = Composite(
    relative(inhibited=True),
    relative(inhibited=False),
    first=image_box,
    last=influence,
    mean=BY_SIZE,
    sum=BY_SIZE,
    norm=pass_(),
    attention=influence,
    hold=(*HELD, "mean"),
)
"""Relative attributing propagation, of one image."""


@portable
def rap_details(f: Fun) -> Explanation[Relevance]:
    """Return the relevance of `rap` at the image and at every layer.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.
    """

    def one(x: Array, target: Array) -> Relevance:
        found = propagate_layers(f, RELATIVE, x[None], target[None])
        return jax.tree.map(lambda a: a[0], found)

    return attribution(f, lambda x, target, key: one_by_one(f, one, x, target))


@method(cost="1 forward, 4 forward and backward per layer", family="relevance", details=rap_details)
def rap(f: Fun) -> Attribution:
    r"""Attribute to each unit how relevant it is, against the others of its layer.

    The classifier shares the logit by the magnitude of contributions `z_jk = a_j w_jk`. Each layer
    below hands relevance to what excites, and a part of it to what inhibits, by its influence:

    $$R_j = \sum_k \Big(\frac{z_{jk}^+}{z_k^+} + \frac{|z_k^-|}{z_k^+ + |z_k^-|}
    \frac{z_{jk}^-}{z_k^-}\Big) R_k - \psi\,1[R_j \ne 0]$$

    where one $\psi$ for the layer keeps the sum. Units of less than the usual influence so end
    below zero: irrelevant. Convolutions hand negative relevance to what inhibits alone. The image
    gets relevance by the z-box rule with its own minimum and maximum. Gates and normalizations pass
    it to what they scale, and held attention shares it by the magnitude of its terms. Law: the map
    sums to the logit, unless a layer has no active input.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: one forward pass, and up to four
        forward and backward ones of every layer, about six forward passes of a ResNet-50.

    Raises:
        UnsupportedOperation: at a product of two values in which no factor can be told, a softmax
            of the logits, or an operation of unknown kind.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.array([[0.0], [3.0], [-1.0]])
        >>> f = lambda x: jax.nn.relu(x.reshape(1, 3) @ jnp.eye(3)) @ w + 2
        >>> x = jnp.array([0.0, 1.0, 1.0]).reshape(1, 1, 3, 1)  # the logit is 4
        >>> rap(f)(x, jnp.array([0])).ravel()
        Array([0., 3., 1.], dtype=float32)

    Reference:
        Nam, Gur, Choi, Wolf and Lee, Relative attributing propagation: interpreting the comparative
        contributions of individual units in deep neural networks, AAAI 2020.

    Differs from the authors' code, which it equals on a VGG, where that fails: BatchNorm is part of
    the layer before it (theirs divides by the variance, not by its root), residual sums share by
    the magnitude of what they add (theirs cannot run), contributions of negative inputs count by
    their sign (theirs hands the relevance down twice), and the classifier is the last layer (theirs
    is where the largest relevance is exactly 1). What their code does with negative relevance in
    convolutions it does not do in dense layers; neither is changed here.
    """

    def one(x: Array, target: Array) -> Array:
        return propagate(f, RELATIVE, x[None], target[None])[0]

    return attribution(f, lambda x, target, key: one_by_one(f, one, x, target))
