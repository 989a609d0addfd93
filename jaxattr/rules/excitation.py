"""Excitation backprop: relevance as the probability that a winner, drawn downwards, passes by.

The winner at a layer draws its own among the inputs that excite it, by their shares of all that
does. What inhibits plays no part, nor do biases.
"""

from jaxattr.rules import lrp
from jaxattr.rules.composites import Composite
from jaxattr.rules.contributions import Handed, LayerRule, negative_terms, positive_terms
from jaxattr.rules.relevance import divide, proportional
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array

excitation: LayerRule = lrp.without_bias(lrp.z_plus())
"""Shares of the positive contributions, `P_j = sum_k z+_jk / z+_k P_k` (Zhang et al., eq. 3)."""


def contrast(r: Array, x: Array, layer: Weighted) -> Handed:
    """Take what inhibits, the shares of the same layer with its weights negated, from what excites.

    The rule of the classifier in contrastive excitation backprop (Zhang et al., section 3.3). What
    it hands down sums to zero.
    """
    p, n = positive_terms(layer, x), negative_terms(layer, x)
    with_p, with_n = divide(r, p.total), divide(r, n.total)
    return Handed(p.back(with_p) - n.back(with_n), r - with_p * p.total + with_n * n.total)


SHARES = proportional(stabilizer=0.0)

EXCITATION = Composite(excitation, excitation, mean=SHARES, sum=SHARES)
"""Excitation backprop."""

CONTRASTIVE = EXCITATION._replace(last=contrast)
"""Contrastive excitation backprop."""
