r"""Layer-wise relevance propagation: how a layer with weights hands relevance to its inputs.

A layer adds contributions $z_{jk} = a_j w_{jk}$ of its inputs and a bias to $z_k = \sum_j z_{jk} +
b_k$; the bias and BatchNorm that follow a convolution are part of it. Each rule shares out the
relevance $R_k$ of an output in proportion to some reading of $z_{jk}$,

$$R_j = \sum_k \frac{z'_{jk}}{\sum_j z'_{jk} + b'_k} R_k.$$

A rule is a function of the relevance, the input and the layer; `contributions.affine` makes a rule
for `with_rules` of it. The bias is one more input in the denominator, which keeps its share, as in
the papers; `without_bias` leaves it out, and `conserving` spreads what it keeps over the inputs.
`stabilizer` is added to every denominator, with its sign; where the terms have one sign none is
needed, and an output without terms hands nothing down.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr.contract import broadcast
from jaxattr.rules.contributions import (
    Handed,
    LayerRule,
    all_terms,
    handed,
    magnitudes,
    negative,
    negative_terms,
    positive,
    positive_terms,
    terms,
)
from jaxattr.rules.relevance import divide
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array


def epsilon(epsilon: float = 1e-6) -> LayerRule:
    r"""LRP-$\epsilon$: all contributions count.

    $$R_j = \sum_k \frac{z_{jk}}{z_k + \epsilon\,\mathrm{sign}(z_k)} R_k$$

    Reference:
        Bach et al., PLOS ONE 2015, eq. 58.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        z = all_terms(layer, x)
        return handed(r, (z, divide(r, z.total + layer.shift, epsilon)))

    return rule


def zero() -> LayerRule:
    """LRP-0: LRP-epsilon with an epsilon of 0, which in a ReLU network is gradient times input.

    Reference:
        Montavon et al., Layer-wise relevance propagation: an overview, 2019, section 10.2.1.
    """
    return epsilon(0.0)


def gamma(gamma: float = 0.25, *, stabilizer: float = 0.0) -> LayerRule:
    r"""LRP-$\gamma$: contributions of the output's own sign count $1 + \gamma$ times.

    Where $z_k > 0$ and $a_j \ge 0$ that is $a_j (w_{jk} + \gamma w_{jk}^+)$; for inputs and outputs
    of either sign it is the generalised rule.

    Reference:
        Montavon et al., 2019, section 10.2.1; generalised by Andeol et al., 2021.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        # Of z + |z| and z - |z|, each twice what has its sign, two products make what took four.
        z, size, b = all_terms(layer, x), magnitudes(layer, x), layer.shift
        total = z.total + b
        sign = jnp.sign(total)
        own = (total + sign * (size.total + jnp.abs(b))) / 2
        share = jnp.where(total == 0, 0, divide(r, total + gamma * own, stabilizer))
        more = gamma / 2 * share
        return handed(r, (z, share + more), (size, sign * more))

    return rule


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, *, stabilizer: float = 0.0) -> LayerRule:
    r"""LRP-$\alpha\beta$: positive and negative contributions on their own, $\alpha - \beta = 1$.

    $$R_j = \sum_k \Big(\alpha \frac{z_{jk}^+}{z_k^+} - \beta \frac{z_{jk}^-}{z_k^-}\Big) R_k$$

    Raises:
        ValueError: unless $\alpha - \beta = 1$ and both are at least 0.

    Reference:
        Bach et al., PLOS ONE 2015, eq. 60.
    """
    if beta < 0 or abs(alpha - beta - 1) > 1e-6:
        raise ValueError(
            f"alpha is {alpha} and beta is {beta}; expected both at least 0, and alpha - beta = 1: "
            "otherwise relevance grows or shrinks from layer to layer"
        )

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        p, n, b = positive_terms(layer, x), negative_terms(layer, x), layer.shift
        return handed(
            r,
            (p, divide(alpha * r, p.total + positive(b), stabilizer)),
            (n, divide(-beta * r, n.total + negative(b), stabilizer)),
        )

    return rule


def z_plus(*, stabilizer: float = 0.0) -> LayerRule:
    r"""The $z^+$ rule: positive contributions only; $\alpha\beta$ with $\alpha = 1$.

    Reference:
        Montavon et al., Explaining nonlinear classification decisions with deep Taylor
        decomposition, Pattern Recognition 2017, eq. 17.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        p = positive_terms(layer, x)
        return handed(r, (p, divide(r, p.total + positive(layer.shift), stabilizer)))

    return rule


def z_box(low: ArrayLike, high: ArrayLike, *, stabilizer: float = 0.0) -> LayerRule:
    r"""The $z^B$ rule, for inputs between bounds.

    $$z'_{jk} = a_j w_{jk} - l_j w_{jk}^+ - h_j w_{jk}^-$$

    Meant for the layer that sees the image. All its terms are positive, and the bias plays no part.

    Args:
        low: the smallest value that a pixel can have, as the model takes it; a number, or an array
            that broadcasts to the input, such as one value per channel.
        high: the largest.
        stabilizer: added to the denominator.

    Reference:
        Montavon et al., 2017, eq. 19.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        lowest, highest = broadcast("low", low, x), broadcast("high", high, x)
        up, down = positive(layer.weight), negative(layer.weight)
        z = terms(layer, (x - lowest, up), (x - highest, down))  # nothing cancels
        return handed(r, (z, divide(r, z.total, stabilizer)))

    return rule


def w_square(*, stabilizer: float = 0.0) -> LayerRule:
    """The w-square rule: squared weights, whatever the input.

    Reference:
        Montavon et al., 2017, eq. 12.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        z = terms(layer, (jnp.ones_like(x), layer.weight**2))
        return handed(r, (z, divide(r, z.total + layer.shift**2, stabilizer)))

    return rule


def flat(*, stabilizer: float = 0.0) -> LayerRule:
    """Spread relevance evenly over all inputs that an output sees.

    Reference:
        Bach et al., Controlling explanatory heatmap resolution and semantics via decomposition
        depth, ICIP 2016.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        z = terms(layer, (jnp.ones_like(x), jnp.ones_like(layer.weight)))
        return handed(r, (z, divide(r, z.total, stabilizer)))

    return rule


def pass_() -> LayerRule:
    """Pass relevance through a layer of one input per output, a scale and shift."""

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        return Handed(r, jnp.zeros_like(r))

    return rule


def detached(epsilon: float = 1e-6) -> LayerRule:
    r"""Leave out a shift: the LRP-epsilon rule of a normalization whose deviation is held.

    $$R_j = \frac{z_j}{z_j + b_j + \epsilon\,\mathrm{sign}(z_j + b_j)} R_j$$

    where $z$ is the scaled input; all of it, exactly, where nothing is added.

    Reference:
        Ali et al., XAI for transformers: better explanations through conservative propagation,
        ICML 2022, section 4.
    """

    def rule(r: Array, x: Array, layer: Weighted) -> Handed:
        z = layer.linear(x)
        down = jnp.where(layer.shift == 0, r, z * divide(r, z + layer.shift, epsilon))
        return Handed(down, r - down)

    return rule


def without_bias(rule: LayerRule) -> LayerRule:
    """Leave the bias out of a rule's denominators."""

    def unbiased(r: Array, x: Array, layer: Weighted) -> Handed:
        return rule(r, x, layer._replace(shift=jnp.zeros_like(layer.shift)))

    return unbiased


def conserving(rule: LayerRule) -> LayerRule:
    """Spread evenly over an output's inputs what its bias, stabiliser or lack of terms would keep.

    Law: the relevance handed down sums to what arrived, except at an output that sees no input.

    Reference:
        Bach et al., PLOS ONE 2015, eq. 53, and the toolbox's `bias_factor`.
    """
    spread = flat()

    def conserved(r: Array, x: Array, layer: Weighted) -> Handed:
        down, rest = rule(r, x, layer)
        more, left = spread(rest, x, layer)
        return Handed(down + more, left)

    return conserved
