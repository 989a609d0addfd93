"""Excitation backprop: where the winner of the logits was drawn from.

Relevance is the probability that a winner, drawn downwards, passes by. The winner at a layer draws
its own among the inputs that excite it, by their shares of all that does. What inhibits plays no
part, nor do biases.
"""

from jaxattr.contract import attribution, one_hot
from jaxattr.facts import method
from jaxattr.image.resize import resize
from jaxattr.portable import portable
from jaxattr.rules import lrp
from jaxattr.rules.composites import Composite
from jaxattr.rules.contributions import LayerRule, positive
from jaxattr.rules.propagation import Relevance, Start, propagate, propagate_layers
from jaxattr.rules.relevance import proportional
from jaxattr.structures.factors import HELD
from jaxattr.tracing.taps import Split, split
from jaxattr.types import Array, Attribution, Explanation, Fun, Grid, Layer

excitation: LayerRule = lrp.without_bias(lrp.z_plus())
"""Shares of the positive contributions, `P_j = sum_k z+_jk / z+_k P_k` (Zhang et al., eq. 3)."""

SHARES = proportional(stabilizer=0.0)

POSITIVE = proportional(positive, stabilizer=0.0)

EXCITATION = Composite(
    *(excitation, excitation),
    mean=SHARES,
    sum=SHARES,
    norm=lrp.pass_(),
    attention=excitation,
    hold=(*HELD, "mean"),
)
"""Excitation backprop of networks without attention."""

EXCITATION = EXCITATION._replace(attending=EXCITATION._replace(sum=POSITIVE, mean=POSITIVE))
"""Excitation backprop."""


@portable
def excitation_backprop_details(
    f: Fun, *, layer: Layer | None = None, grid: Grid = None
) -> Explanation[Relevance]:
    """Return the probabilities of `excitation_backprop` at the image and at every layer.

    Args:
        f: as for `excitation_backprop`.
        layer: as for `excitation_backprop`. With a layer, the draw ends there: `layers` holds what
            comes after it.
        grid: as for `excitation_backprop`.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.reshape(1, 3) @ jnp.array([[1.0], [3.0], [-5.0]])
        >>> found = excitation_backprop_details(f)(jnp.ones((1, 1, 3, 1)), jnp.array([0]))
        >>> {name: p.tolist() for name, p in found.layers.items()}
        {'dot_general': [[1.0]]}
    """
    return map_and_layers(f, EXCITATION, layer, grid)


@method(
    cost="1 forward, 2 forward and backward per layer",
    family="relevance",
    details=excitation_backprop_details,
)
def excitation_backprop(f: Fun, *, layer: Layer | None = None, grid: Grid = None) -> Attribution:
    r"""Attribute to each unit the probability that it wins in a draw from the logit down.

    The draw starts at the target. A winner `k` draws among its inputs those that excite it,

    $$P_j = \sum_k \frac{z_{jk}^+}{\sum_j z_{jk}^+} P_k, \qquad z_{jk} = a_j w_{jk}$$

    (eqs. 1, 3) with BatchNorm as part of the layer and without biases. Activations pass the
    probability on, a max-pool to its winner, sums and average pools by the shares of what they
    add. Gates and normalizations pass it to what they scale. Attention is held: a winner draws
    among the values that excite it, and residual sums and means share by their positive parts. In
    networks without attention they share in proportion: summands of both signs make the map signed
    there, little where they follow ReLUs, as in a ResNet, much in an MLP-Mixer or a ConvNeXt. Laws:
    with attention, or on a network of ReLUs without residual sums, nothing is negative, and the
    whole is 1 where every winner has an input that excites it.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a module path such as `"layer3"`, a `jax.named_scope` or a `checkpoint_name`: the
            map is then the layer's, summed over channels. By default the image's.
        grid: rows and columns of the layer's tokens, where the function does not tell.

    Returns:
        An attribution of the shape of `x`; with a layer of shape `(B, H, W, 1)`, resized
        bilinearly. Cost: about three forward passes of a ResNet-50 or a VGG-16.

    Raises:
        UnsupportedOperation: at a product of two values in which no factor can be told, a softmax
            of the logits, or an operation of unknown kind.
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
    return map_alone(f, EXCITATION, layer, grid)


def map_alone(f: Fun, composite: Composite, layer: Layer | None, grid: Grid) -> Attribution:
    """Return the probabilities at the image or at a layer, by the rules of a composite."""

    def explain(x: Array, target: Array, key: object) -> Array:
        if layer is None:
            return propagate(f, composite, x, target, winner)
        halves = split(f, x, layer=layer, grid=grid)
        return _drawn(relevance_at(halves, composite, x, target), halves, x)

    return attribution(f, explain)


def map_and_layers(
    f: Fun, composite: Composite, layer: Layer | None, grid: Grid
) -> Explanation[Relevance]:
    """Return the probabilities of `map_alone`, and those at every layer on the way."""

    def explain(x: Array, target: Array, key: object) -> Relevance:
        if layer is None:
            return propagate_layers(f, composite, x, target, winner)
        halves = split(f, x, layer=layer, grid=grid)
        both = (halves.before(x), x)
        found = propagate_layers(lambda both: halves.after(*both), composite, both, target, winner)
        relevance, _ = found.attribution
        return found._replace(attribution=_drawn(relevance, halves, x))

    return attribution(f, explain)


def winner(logits: Array, target: Array) -> Array:
    """Start with a probability of one at the target."""
    return one_hot(target, logits)


def relevance_at(
    halves: Split, composite: Composite, x: Array, target: Array, start: Start = winner
) -> Array:
    """Return the relevance of a layer; what bypasses the layer takes its share."""
    after = lambda both: halves.after(*both)
    relevance, _ = propagate(after, composite, (halves.before(x), x), target, start)
    return relevance


def _drawn(relevance: Array, halves: Split, x: Array) -> Array:
    """Sum a layer's relevance over its channels, and resize it to the image."""
    channels = halves.channels_last(relevance)
    return resize(channels.sum(-1, keepdims=True), (x.shape[1], x.shape[2]))
