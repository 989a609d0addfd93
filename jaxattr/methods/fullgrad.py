"""FullGrad: a logit as a sum of terms, one for the image and one for each bias."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.contract import (
    attribution,
    attribution_of,
    one_by_one,
    one_hot,
    vary_like,
    where_finite,
)
from jaxattr.facts import method
from jaxattr.image.resize import resize_aligned, resized_sum
from jaxattr.portable import portable
from jaxattr.rules import gates
from jaxattr.tracing.shifts import shifted
from jaxattr.types import Array, Attribution, Explanation, Fun

_SMALL = 1e-6  # below this a layer counts for nothing, in the authors' code


class FullGradients(NamedTuple):
    """The terms of a logit.

    Attributes:
        attribution: the map of `fullgrad`, `(B, H, W, 1)`.
        input: the gradient times the image, of the shape of `x`.
        biases: for each layer that adds something, by its module path, the gradient at its output
            times what it adds, of the shape of that output; with the batch in front, if some layer
            has another axis there.
    """

    attribution: Array
    input: Array
    biases: dict[str, Array]


@portable
def fullgrad_details(f: Fun) -> Explanation[FullGradients]:
    """Return all terms that `fullgrad` finds.

    Returns:
        `(x, target) -> FullGradients(attribution, input, biases)`.
    """

    def explain(x: Array, target: Array, key: object) -> FullGradients:
        network = shifted(f, x, gates.gradient)
        if not network.batched:
            return one_by_one(f, one, x, target)
        zeros = {k: jnp.zeros(s.site.shape, s.site.dtype) for k, s in network.shifts.items()}
        logits, pull = jax.vjp(network.output, x, vary_like(zeros, x))
        gradient, biases = pull(one_hot(target, logits))
        layers = [
            jnp.moveaxis(biases[name], shift.channel_axis, -1)
            for name, shift in network.shifts.items()
            if len(shift.site.shape) == 4 and shift.batched
        ]
        scaled = map(_scaled, (gradient * x, *layers))
        cam = resized_sum(scaled, (x.shape[1], x.shape[2]), resize_aligned)
        return where_finite(FullGradients(cam.astype(x.dtype), gradient * x, biases), logits)

    def one(x: Array, target: Array) -> FullGradients:
        found = explain(x[None], target[None], None)
        return jax.tree.map(lambda a: a[0] if a.shape[:1] == (1,) else a, found)

    return attribution(f, explain, has_rules=True)


@method(cost="1 forward, 1 backward", family="biases", spatial=True, details=fullgrad_details)
def fullgrad(f: Fun) -> Attribution:
    """Attribute to the image and to every bias, and draw them over each other.

    Around `x` a network is affine, so that its logit is a sum of terms, exactly:

        f(x)[t] = sum(grad_x f * x) + sum_l sum(grad_l f * b_l)      (Proposition 1)

    `b_l` is all that layer `l` adds: its bias with the BatchNorm that follows folded in, along
    the data flow. An activation that does not scale with its input, such as a ReLU6 or a SiLU, is
    its tangent and an offset, `slope * z + (a - slope * z)`; the offset is a term too (the paper's
    implicit bias), and so is `-a b` for a product of values that depend on `x`. The map is

        a = psi(grad_x f * x) + sum_l sum_c psi(grad_l f * b_l)_c      (eq. 4)

    where `psi` takes magnitudes, scales them to [0, 1] over the image or layer, and enlarges them
    bilinearly to the image. Dense layers have no place in it. `fullgrad_details` returns the
    terms themselves. Laws: the terms sum to the logit; equals the authors' arrays.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: one forward and one backward pass.

    Raises:
        UnsupportedOperation: if `f` contains an operation that the reader does not know.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x.reshape(1, 2) - 1) @ jnp.array([[1.0], [5.0]])
        >>> found = fullgrad_details(f)(jnp.array([3.0, 2.0]).reshape(1, 1, 2, 1), jnp.array([0]))
        >>> found.input.ravel(), {name: b.tolist() for name, b in found.biases.items()}
        (Array([ 3., 10.], dtype=float32), {'sub[0]': [[-1.0, -5.0]]})

    Reference:
        Srinivas and Fleuret, Full-gradient representation for neural network visualization, NeurIPS
        2019.

    Like the authors' code, scales all channels of a layer at once, with 1e-6 added to the largest
    value, and enlarges with the corners aligned.
    """
    return attribution_of(fullgrad_details(f))


def _scaled(a: Array) -> Array:
    """Scale the magnitudes of `(B, h, w, C)` to [0, 1] and sum the channels: psi, not enlarged."""
    a, axes = jnp.abs(a), (1, 2, 3)
    a -= a.min(axes, keepdims=True)
    a /= a.max(axes, keepdims=True) + _SMALL
    return a.sum(-1, keepdims=True)
