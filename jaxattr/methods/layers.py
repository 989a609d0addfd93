"""The value of a layer and the gradient there, which many methods are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, class_gradient, where_finite
from jaxattr.image.resize import resize
from jaxattr.scores import Score, logit
from jaxattr.tracing.local import Rule
from jaxattr.tracing.taps import split
from jaxattr.tracing.transform import with_rules
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


class Channels(NamedTuple):
    """The value of a layer and the gradient with respect to it, `(B, h, w, C)` each."""

    value: Array
    gradient: Array


def at_layer(
    f: Fun,
    x: Array,
    target: Array,
    layer: Layer | None,
    grid: Grid = None,
    *,
    rules: Mapping[str, Rule] | None = None,
    score: Score = logit,
) -> Channels:
    """Return what the channels of a layer hold, and how the score of the target grows with it.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        x: the images.
        target: classes `(B,)`.
        layer: a name as for `split`, by default the last layer with a spatial extent.
        grid: rows and columns of its tokens, where the function does not tell.
        rules: rules for the backward pass from the logits to the layer.
        score: of the logits, what is differentiated.
    """
    halves = split(f, x, layer=layer, rules=rules, grid=grid)
    value = halves.before(x)
    logits, pull = jax.vjp(lambda v: halves.after(v, x), value)
    (gradient,) = pull(jax.grad(lambda z: score(z, target).sum())(logits))
    both = Channels(halves.channels_last(value), halves.channels_last(gradient))
    return where_finite(both, logits)


def at_image_or_layer(
    f: Fun,
    layer: Layer | None,
    rules: Mapping[str, Rule] | None = None,
    *,
    needs: Sequence[str] = (),
) -> Callable[[Array, Array], Channels]:
    """Return `(x, target) -> Channels` at the image, or at a layer if one is named.

    Law: at a layer it is what the rest of the network, a classifier of that layer's value, has at
    its image.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a name as for `split`, or None for the image.
        rules: rules for the backward pass, as for `jaxattr.with_rules`.
        needs: kinds of operations of which `f` must contain one, at any place.
    """
    ruled = with_rules(f, rules or {}, needs=needs)

    def read(x: Array, target: Array) -> Channels:
        if layer is None:
            return Channels(x, class_gradient(ruled, x, target))
        if needs:
            jax.eval_shape(ruled, x)
        return at_layer(f, x, target, layer, rules=rules)

    return read


def cam(
    f: Fun,
    weigh: Callable[[Channels], Array],
    *,
    layer: Layer | None,
    grid: Grid,
    relu: bool = True,
    score: Score = logit,
) -> Attribution:
    """Draw over the image what a class activation map makes of a layer and its gradient.

    Args:
        f: the classifier.
        weigh: channels to weighted ones, `(B, h, w, C)`, which are summed.
        layer: as for `grad_cam`.
        grid: as for `grad_cam`.
        relu: whether what is negative is dropped.
        score: of the logits, what is differentiated.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        channels = at_layer(f, x, target, layer, grid, score=score)
        return drawn(weigh(channels), x, relu=relu)

    return attribution(f, explain)


def drawn(channels: Array, x: Array, *, relu: bool = True) -> Array:
    """Sum weighted channels `(B, h, w, C)`, and enlarge the sum to the images, `(B, H, W, 1)`."""
    total = channels.sum(-1, keepdims=True)
    return resize(jnp.maximum(total, 0) if relu else total, (x.shape[1], x.shape[2]))
