"""What a layer's inputs contribute to its outputs, and rules made of that.

A layer adds contributions $z_{jk} = a_j w_{jk}$. A rule chooses terms, such as the positive ones,
and a coefficient for each output; the relevance of an input is the sum of its terms, each times the
coefficient. No Jacobian is built: terms are products `x * w` of other inputs and weights than the
layer's own, so their sums are the layer at these, and the way back is its derivative.
"""

from collections.abc import Callable
from functools import reduce
from operator import add, mul
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxattr.rules.relevance import of_layer
from jaxattr.tracing.local import Rule
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array


class Handed(NamedTuple):
    """What a rule does with relevance.

    Attributes:
        down: the relevance of the inputs.
        rest: of each output's relevance, what was not handed down.
    """

    down: Array
    rest: Array


LayerRule: TypeAlias = Callable[[Array, Array, Weighted], Handed]
"""`(relevance, x, layer) -> Handed`, where `layer.apply(x, layer.weight) + layer.shift` is $z$."""


class Terms(NamedTuple):
    r"""Contributions $z'_{jk}$ of a layer's inputs.

    Attributes:
        total: their sums over the inputs, $\sum_j z'_{jk}$.
        back: from a coefficient $c_k$ for each output to $\sum_k z'_{jk} c_k$.
    """

    total: Array
    back: Callable[[Array], Array]


def terms(layer: Weighted, *parts: tuple[Array, Array]) -> Terms:
    """Return contributions that are sums of products `x * w`, one for each pair `(x, w)`."""
    xs, ws = zip(*parts, strict=True)
    total, pull = jax.vjp(lambda *xs: reduce(add, map(layer.apply, xs, ws)), *xs)
    return Terms(total, lambda c: reduce(add, map(mul, xs, pull(c))))


def all_terms(layer: Weighted, x: Array) -> Terms:
    """Return all contributions, `terms(layer, (x, layer.weight))`, which the layer has computed."""
    total, pull = jax.vjp(layer.linear, x)
    return Terms(total, lambda c: x * pull(c)[0])


def magnitudes(layer: Weighted, x: Array) -> Terms:
    """Return the magnitudes of all contributions."""
    return terms(layer, (x if layer.nonnegative else jnp.abs(x), jnp.abs(layer.weight)))


def positive_terms(layer: Weighted, x: Array) -> Terms:
    """Return the positive contributions, of either sign of the input."""
    return _signed_terms(layer, x, positive(layer.weight), negative(layer.weight))


def negative_terms(layer: Weighted, x: Array) -> Terms:
    """Return the negative contributions, of either sign of the input."""
    return _signed_terms(layer, x, negative(layer.weight), positive(layer.weight))


def _signed_terms(layer: Weighted, x: Array, of_positive: Array, of_negative: Array) -> Terms:
    if layer.nonnegative:
        return terms(layer, (x, of_positive))
    return terms(layer, (positive(x), of_positive), (negative(x), of_negative))


def affine(rule: LayerRule) -> Rule:
    """Make a rule for `with_rules`, of kind `affine`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxattr
        >>> from jaxattr.rules import lrp
        >>> f = lambda x: x @ jnp.array([2.0, -1.0])
        >>> g = jaxattr.with_rules(f, {"affine": affine(lrp.z_plus())})
        >>> jax.vjp(g, jnp.array([3.0, 1.0]))[1](5.0)[0]
        Array([5., 0.], dtype=float32)
    """
    return of_layer(lambda r, x, layer: rule(r, x, layer).down)


def handed(r: Array, *shares: tuple[Terms, Array]) -> Handed:
    """Hand down `c` times each term, for each of some terms with their coefficients `c`."""
    down = reduce(add, (z.back(c) for z, c in shares))
    return Handed(down, r - reduce(add, (c * z.total for z, c in shares)))


def positive(a: Array) -> Array:
    """Return the positive part."""
    return jnp.maximum(a, 0)


def negative(a: Array) -> Array:
    """Return the negative part."""
    return jnp.minimum(a, 0)
