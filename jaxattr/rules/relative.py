"""Relative attributing propagation: relevant and irrelevant units, told apart layer by layer.

What excites a relevant unit is relevant, and what inhibits it takes relevance too, in proportion to
its influence; then the same amount is taken from every active unit, so that the sum is what it was
and units of little influence end below zero. The rules see one image at a time.
"""

import jax.numpy as jnp

from jaxattr.rules.composites import Composite
from jaxattr.rules.contributions import Handed, LayerRule, negative_terms, positive_terms, terms
from jaxattr.rules.lrp import z_box
from jaxattr.rules.relevance import divide, proportional
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array


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
        down = p.back(divide(r - first, p.total)) + n.back(divide(first + second, n.total))
        return shifted(r, down, down != 0)

    return rule


def shifted(r: Array, down: Array, active: Array) -> Handed:
    """Take the same amount from every active unit, so that `down` sums to what `r` does."""
    excess = divide(down.sum() - r.sum(), active.sum().astype(r.dtype))
    return Handed(
        down - jnp.where(active, excess, 0), jnp.where(active.any(), jnp.zeros_like(r), r)
    )


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
)
"""Relative attributing propagation, of one image."""
