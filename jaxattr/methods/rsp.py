"""RSP: the relevance of a class against hostile ones, section by section.

The two signs of relevance are handed down each by the weights that carry it. The rules see one
image at a time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.contract import (
    attribution,
    count_classes,
    is_concrete,
    one_by_one,
    one_hot,
    where_finite,
)
from jaxattr.facts import method
from jaxattr.methods.rap import image_box, influence, shifted
from jaxattr.portable import portable
from jaxattr.rules.composites import Composite, changed
from jaxattr.rules.contributions import Handed, LayerRule, terms
from jaxattr.rules.lrp import pass_
from jaxattr.rules.propagation import Relevance, propagate, propagate_layers
from jaxattr.rules.relevance import divide, proportional, settled
from jaxattr.structures.factors import HELD
from jaxattr.tracing.taps import Split, split
from jaxattr.tracing.weights import Weighted
from jaxattr.types import Array, Attribution, Explanation, Fun, Layer


class Rules(NamedTuple):
    """Whether units are purged, and whether layers of 1x1 kernels shift relevance too."""

    purge: bool
    pointwise: bool


def purged(r: Array, channels: tuple[int, ...]) -> Array:
    """Zero every unit whose sign is not that of the sum over channels at its position."""
    total, size = (a.sum(channels, keepdims=True) for a in (r, jnp.abs(r)))
    return jnp.where(r * settled(total, size) > 0, r, 0)


def sectional(r: Array, x: Array, layer: Weighted, *, pointwise: bool = False) -> Handed:
    r"""Hand each sign of relevance down by weights made for it.

    For the positive part $P$ of $R$, with the layer as a bilinear map $f(x, w)$,

    $$\nu = \mathrm{vjp}_w[f(x, w)](P), \qquad
    R^+ = x \odot \mathrm{vjp}_x[f(x, \nu)]\big(P / f(x, \nu)\big)$$

    and likewise for the negative part. Where the window is larger than one position, or everywhere
    if `pointwise`, both count twice, and every active input gives up the same amount, so that the
    sum is what it was (eq. 5).
    """
    x = x if layer.nonnegative else jnp.abs(x)
    layer = layer._replace(apply=layer.apply_own)
    _, weights = jax.vjp(lambda w: layer.apply(x, w), layer.weight)

    def section(r: Array) -> Array:
        z = terms(layer, (x, weights(r)[0]))
        return z.back(divide(r, z.total))

    up, below = jax.vmap(section)(jnp.stack([jnp.maximum(r, 0), jnp.maximum(-r, 0)]))
    down = up - below
    if layer.window == 1 and not pointwise:
        return Handed(down, jnp.zeros_like(r))
    return shifted(r, 2 * down, x > 0)


def purging(rule: LayerRule) -> LayerRule:
    """Purge relevance before a rule hands it down."""

    def purges(r: Array, x: Array, layer: Weighted) -> Handed:
        kept = purged(r, layer.channels)
        down, rest = rule(kept, x, layer)
        return Handed(down, rest + r - kept)

    return purges


POSITIVE = proportional(lambda a: jnp.maximum(a, 0), stabilizer=0.0)

SECTIONAL = Composite(
    *(sectional, sectional, image_box),
    mean=POSITIVE,
    sum=POSITIVE,
    norm=pass_(),
    attention=influence,
    hold=(*HELD, "mean"),
)
"""Relative sectional propagation, of one image."""


@portable
def rsp_details(
    f: Fun,
    *,
    layer: Layer | None = None,
    hostile: Array | None = None,
    purge: bool = True,
    pointwise: bool = False,
) -> Explanation[Relevance]:
    """Return the relevance of `rsp` at the image and at every layer up to the feature layer.

    Args:
        f: as for `rsp`.
        layer: as for `rsp`.
        hostile: as for `rsp`.
        purge: as for `rsp`.
        pointwise: as for `rsp`.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.
    """
    return _attribution(f, propagate_layers, layer, hostile, Rules(purge, pointwise))


@method(
    cost="1 forward, 2 backward; 2 forward, 4 backward per layer",
    family="relevance",
    details=rsp_details,
)
def rsp(
    f: Fun,
    *,
    layer: Layer | None = None,
    hostile: Array | None = None,
    purge: bool = True,
    pointwise: bool = False,
) -> Attribution:
    r"""Attribute to each pixel evidence for the target, or for hostile classes.

    At the feature layer, with values `x`, each class has a gradient activation map

    $$G^c_{ijk} = \mathrm{ReLU}(x_{ijk} \, \mathrm{mean}_{ij} \, \partial y^c / \partial x_{ijk}),$$

    divided by its maximum, and the target's is set against those of the `n` hostile classes,

    $$F = n G^t - \sum_q G^{h_q}$$

    Units whose sign is not that of their position's sum over channels are purged; what is positive
    is scaled to a sum of 2, what is negative to one of -1. Both are handed down together, layer by
    layer, each by weights made for it (see `sectional`): purged again, and shifted by the same
    amount at every active unit so that the sum is kept. Residual sums share by the positive parts
    of what they add, the first layer has the z-box rule with the image's own minimum and maximum,
    and BatchNorm is part of the layer before it. So the target's object
    becomes positive, hostile ones negative, the rest about zero. Laws: without purging the map sums
    to what it starts from, wherever an output with relevance has an active input; each image is
    independent of its batch.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: the feature layer: a module path such as `"layer4"`, a `jax.named_scope` or a
            `checkpoint_name`. By default the last layer with a spatial extent, as in the paper.
        hostile: classes for each image, integers of shape `(B, n)`, -1 for none: the other labels,
            or the other predicted classes. By default the class of the highest logit but for the
            target's. With none the start is the target's map alone, scaled to a sum of 1.
        purge: whether units are purged; the authors' released code does not.
        pointwise: whether layers of 1x1 kernels shift relevance too.

    Returns:
        An attribution of the shape of `x`. Its sign says which side a pixel is on. Cost: about
        seven forward passes of a ResNet-50 or a VGG-16.

    Raises:
        UnsupportedOperation: at a product of two values that depend on `x`, a normalization by
            them, or an operation of unknown kind, below the feature layer.
        ValueError: if the layer is unknown; the known ones are listed. If `hostile` has another
            shape, holds a number that is no class, or the target.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x @ jnp.eye(2))
        >>> x = jnp.eye(2).reshape(1, 1, 2, 2)  # a pixel of class 0, a pixel of class 1
        >>> a = rsp(lambda x: features(x).mean((1, 2)), layer="features")(x, jnp.array([0]))
        >>> a.sum(-1).ravel()
        Array([ 2., -1.], dtype=float32)

    Reference:
        Nam, Choi and Lee, Interpreting deep neural networks with relative sectional propagation by
        analyzing comparative gradients and hostile activations, AAAI 2021.

    Differs from the paper's eq. 5 in that layers of 1x1 kernels do not shift relevance, as in the
    authors' code: `pointwise=True` is the equation to the letter, which in a bottleneck takes three
    times from what is about zero.

    Differs from the authors' code, which `purge=False` equals on a stack of convolutions from the
    same start: that never purges inside the network, nor tells images of a batch apart; its start
    spreads the sum over channels evenly; its BatchNorm divides by the variance, not by its root,
    and its residual blocks multiply the two signs.
    """
    return _attribution(f, propagate, layer, hostile, Rules(purge, pointwise))


def relative_map(halves: Split, x: Array, value: Array, classes: Array) -> Array:
    """Return `F`, the map of the first class against those of the others.

    Args:
        halves: the function cut at the feature layer.
        x: one image, with a batch axis.
        value: the feature layer's value.
        classes: the target, then hostile classes, `(1 + n,)`; -1 for none.
    """
    logits, pull = jax.vjp(lambda v: halves.after(v, x), value)
    channel = halves.channel_axis % value.ndim
    positions = [axis for axis in range(1, value.ndim) if axis != channel]

    def activation(c: Array) -> Array:
        (gradient,) = pull(one_hot(c[None], logits))
        g = jnp.maximum(value * gradient.mean(positions, keepdims=True), 0)
        return where_finite(divide(g, g.max()), logits)

    target, *hostile = map(activation, classes)
    if not hostile:
        return target
    n = (classes[1:] >= 0).sum().astype(value.dtype)
    ours, theirs = jnp.maximum(n, 1) * target, sum(hostile[1:], hostile[0])
    return settled(ours - theirs, ours + theirs)


def balanced(relevance: Array) -> Array:
    """Scale the positive part to a sum of 2 and the negative to -1; a sign that is alone to 1."""
    up, down = jnp.maximum(relevance, 0), jnp.maximum(-relevance, 0)
    twice = jnp.where((up.sum() > 0) & (down.sum() > 0), 2, 1).astype(relevance.dtype)
    return divide(twice * up, up.sum()) - divide(down, down.sum())


def _attribution(
    f: Fun, run: Callable[..., Any], layer: Layer | None, hostile: Array | None, rules: Rules
) -> Any:
    def one(x: Array, target: Array, hostile: Array | None) -> Any:
        halves = split(f, x[None], layer=layer)
        value = halves.before(x[None])
        if hostile is None:
            logits = halves.after(value, x[None])[0]
            others = jnp.where(jnp.arange(len(logits)) == target, -jnp.inf, logits)
            hostile = others.argmax()[None][: len(logits) - 1]  # none against the only class
        classes = jnp.concatenate([target[None], hostile.astype(target.dtype)])
        return handed_down(run, halves, x, relative_map(halves, x[None], value, classes), rules)

    def explain(x: Array, target: Array, key: object) -> Any:
        if hostile is None:
            return one_by_one(f, partial(one, hostile=None), x, target)
        classes = count_classes(f, x)
        others = jnp.asarray(hostile)
        check_hostile(others, target, classes)
        found = one_by_one(f, one, x, target, others)
        inside = ((others >= -1) & (others < classes)).all(1)
        keep = lambda a: jnp.where(inside.reshape(-1, *[1] * (a.ndim - 1)), a, jnp.nan)
        return jax.tree.map(keep, found)

    return attribution(f, explain)


def handed_down(
    run: Callable[..., Any], halves: Split, x: Array, start: Array, rules: Rules
) -> Any:
    """Hand relevance down from the feature layer of one image.

    Args:
        run: `propagate` or `propagate_layers`.
        halves: the function cut at the feature layer.
        x: one image, without a batch axis.
        start: the relevance of the feature layer, with a batch axis.
        rules: what they do.
    """
    composite, known = SECTIONAL, jnp.isfinite(start).all()
    if rules.pointwise:
        everywhere = partial(sectional, pointwise=True)
        composite = composite._replace(convolution=everywhere, dense=everywhere)
    if rules.purge:
        start = purged(start, (halves.channel_axis,))
        composite = changed(composite, purging)
    start = balanced(start)
    found = run(halves.first, composite, x[None], None, lambda *_: start)
    return jax.tree.map(lambda a: jnp.where(known, a[0], jnp.nan), found)


def check_hostile(hostile: Array, target: Array, classes: int) -> None:
    """Raise `ValueError` unless hostile classes are classes other than the target, or -1."""
    batch = target.shape[0]
    if hostile.ndim != 2 or len(hostile) != batch or not jnp.issubdtype(hostile.dtype, jnp.integer):
        raise ValueError(
            f"hostile has shape {hostile.shape} and dtype {hostile.dtype}; expected integer "
            f"classes for each of the {batch} images, shape ({batch}, n), with -1 for none"
        )
    if is_concrete(hostile):
        values = np.asarray(hostile)
        if (wrong := (values < -1) | (values >= classes)).any():
            i, j = np.argwhere(wrong)[0]
            raise ValueError(
                f"hostile[{i}, {j}] is {values[i, j]}; the classes are 0 to {classes - 1}, and -1 "
                "is none"
            )
        if is_concrete(target) and (same := values == np.asarray(target)[:, None]).any():
            i, j = np.argwhere(same)[0]
            raise ValueError(
                f"hostile[{i}, {j}] is {values[i, j]}, the target itself: leave it out, or write -1"
            )
