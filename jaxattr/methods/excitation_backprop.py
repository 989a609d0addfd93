"""Excitation backprop: where the winner of the logits was drawn from."""

import jax.numpy as jnp

from jaxattr.contract import attribution, one_hot
from jaxattr.image.resize import resize
from jaxattr.rules.composites import Composite
from jaxattr.rules.excitation import CONTRASTIVE, EXCITATION
from jaxattr.rules.propagation import Relevance, propagate, propagate_layers
from jaxattr.tracing.taps import Split, split
from jaxattr.types import Array, Attribution, Explanation, Fun


def excitation_backprop(f: Fun, *, layer: str | None = None) -> Attribution:
    r"""Attribute to each unit the probability that it wins in a draw from the logit down.

    The draw starts at the target. A winner `k` draws among its inputs those that excite it,

    $$P_j = \sum_k \frac{z_{jk}^+}{\sum_j z_{jk}^+} P_k, \qquad z_{jk} = a_j w_{jk}$$

    (eqs. 1, 3) with BatchNorm as part of the layer and without biases. Activations pass the
    probability on, a max-pool to its winner, sums and average pools by the shares of what they
    add. Laws: on a network of ReLUs without residual sums nothing is negative, and the whole is 1
    where every winner has an input that excites it.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a module path such as `"layer3"`, a `jax.named_scope` or a `checkpoint_name`: the
            map is then the layer's, summed over channels. By default the image's.

    Returns:
        An attribution of the shape of `x`; with a layer of shape `(B, H, W, 1)`, resized
        bilinearly. Cost: about three forward passes of a ResNet-50 or a VGG-16.

    Raises:
        UnsupportedOperation: at a product of two values that depend on `x`, a normalisation by
            them, or an operation of unknown kind.
        ValueError: if the layer is unknown; the known ones are listed.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.reshape(1, 3) @ jnp.array([[1.0], [3.0], [-5.0]])
        >>> excitation_backprop(f)(jnp.ones((1, 1, 3, 1)), jnp.array([0])).ravel()
        Array([0.25, 0.75, 0.  ], dtype=float32)

    Reference:
        Zhang, Lin, Brandt, Shen and Sclaroff, Top-down neural attention by excitation backprop,
        ECCV 2016.

    Differs from TorchRay, which passes a BatchNorm by, whatever the signs of its scales, and takes
    an image of both signs for one that excites. A saturated ReLU6 passes probability on here.
    """
    return _mapped(f, EXCITATION, layer)


def excitation_layers(f: Fun) -> Explanation[Relevance]:
    """Return the probabilities of `excitation_backprop` at the image and at every layer."""
    return attribution(
        f, lambda x, target, key: propagate_layers(f, EXCITATION, x, target, _winner)
    )


def contrastive_excitation_backprop(f: Fun, *, layer: str | None = None) -> Attribution:
    r"""Attribute what excites the target less what excites its opposite.

    The opposite is a target whose weights are negated: at the classifier

    $$P_j = \sum_k \Big(\frac{z_{jk}^+}{z_k^+} - \frac{z_{jk}^-}{z_k^-}\Big) P_k$$

    and below it `excitation_backprop`, which is linear in `P`. So the contrast is the difference of
    the two maps, wherever below the classifier it is taken. Laws: that; the map sums to zero where
    every winner has an input that excites it.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, ending in a layer with weights.
        layer: as in `excitation_backprop`.

    Returns:
        An attribution as in `excitation_backprop`, of both signs; `jaxattr.maps.positive` keeps
        what speaks for the target, the map of the paper.

    Raises:
        UnsupportedOperation: as `excitation_backprop` does.
        ValueError: as `excitation_backprop` does.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.reshape(1, 3) @ jnp.array([[1.0], [3.0], [-5.0]])
        >>> contrastive_excitation_backprop(f)(jnp.ones((1, 1, 3, 1)), jnp.array([0])).ravel()
        Array([ 0.25,  0.75, -1.  ], dtype=float32)

    Reference:
        Zhang, Lin, Brandt, Shen and Sclaroff, Top-down neural attention by excitation backprop,
        ECCV 2016.

    Differs from TorchRay, which needs the layer of the contrast named, and drops what is negative.
    """
    return _mapped(f, CONTRASTIVE, layer)


def contrastive_excitation_layers(f: Fun) -> Explanation[Relevance]:
    """Return the map of `contrastive_excitation_backprop` at the image and at every layer."""
    return attribution(
        f, lambda x, target, key: propagate_layers(f, CONTRASTIVE, x, target, _winner)
    )


def contrast_at(halves: Split, x: Array, target: Array) -> Array:
    """Return contrastive excitation backprop at the layer where a function was cut."""
    return relevance_at(halves, CONTRASTIVE, x, target)


def _mapped(f: Fun, composite: Composite, layer: str | None) -> Attribution:
    def explain(x: Array, target: Array, key: object) -> Array:
        if layer is None:
            return propagate(f, composite, x, target, _winner)
        halves = split(f, x, layer=layer)
        relevance = relevance_at(halves, composite, x, target)
        if relevance.ndim != 4:
            raise ValueError(
                f"layer {layer!r} has shape {relevance.shape}; expected (batch, height, width, "
                "channels)"
            )
        relevance = jnp.moveaxis(relevance, halves.channel_axis, -1)
        return resize(relevance.sum(-1, keepdims=True), (x.shape[1], x.shape[2]))

    return attribution(f, explain)


def relevance_at(halves: Split, composite: Composite, x: Array, target: Array) -> Array:
    """Return the relevance of a layer; what bypasses it takes its share."""
    after = lambda both: halves.after(*both)
    relevance, _ = propagate(after, composite, (halves.before(x), x), target, _winner)
    return relevance


def _winner(logits: Array, target: Array) -> Array:
    """Start with a probability of one at the target."""
    return one_hot(target, logits)
