"""Relative attributing propagation."""

import jax

from jaxattr.contract import attribution, one_by_one
from jaxattr.facts import method
from jaxattr.rules.propagation import Relevance, propagate, propagate_layers
from jaxattr.rules.relative import RELATIVE
from jaxattr.types import Array, Attribution, Explanation, Fun


def rap_details(f: Fun) -> Explanation[Relevance]:
    """Return the relevance of `rap` at the image and at every layer.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.
    """

    def one(x: Array, target: Array) -> Relevance:
        found = propagate_layers(f, RELATIVE, x[None], target[None])
        return jax.tree.map(lambda a: a[0], found)

    return attribution(f, lambda x, target, key: one_by_one(f, one, x, target), has_rules=True)


@method(cost="1 forward, 4 forward and backward per layer", family="relevance", details=rap_details)
def rap(f: Fun) -> Attribution:
    r"""Attribute to each unit how relevant it is, against the others of its layer.

    The classifier shares the logit by the magnitude of contributions `z_jk = a_j w_jk`. Each layer
    below hands relevance to what excites, and a part of it to what inhibits, by its influence:

    $$R_j = \sum_k \Big(\frac{z_{jk}^+}{z_k^+} + \frac{|z_k^-|}{z_k^+ + |z_k^-|}
    \frac{z_{jk}^-}{z_k^-}\Big) R_k - \psi\,1[R_j \ne 0]$$

    where one $\psi$ for the layer keeps the sum. Units of less than the usual influence so end
    below zero: irrelevant. Convolutions hand negative relevance to what inhibits alone. The image
    gets relevance by the z-box rule with its own minimum and maximum. Law: the map sums to the
    logit, unless a layer has no active input.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: one forward pass, and up to four
        forward and backward ones of every layer, about six forward passes of a ResNet-50.

    Raises:
        UnsupportedOperation: at a product of two values that depend on `x`, a normalization by
            them, or an operation of unknown kind.

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

    return attribution(f, lambda x, target, key: one_by_one(f, one, x, target), has_rules=True)
