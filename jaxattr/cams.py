"""Class activation maps by gradients: what a layer's channels say of a class, over the image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxattr.backprop import guided_backprop
from jaxattr.maps import resize
from jaxattr.targets import attribution, one_hot
from jaxattr.tracing.layers import Split, split
from jaxattr.types import Array, Attribution, Fun


def grad_cam(f: Fun, *, layer: str | None = None, relu: bool = True) -> Attribution:
    """Weight a layer's channels by their mean gradient.

        w_c = mean_ij dy_t / dA_ijc,    a = ReLU( sum_c w_c A_c )      (eqs. 1, 2)

    resized bilinearly to the image. Laws: for a network that ends in global average pooling and
    one dense layer, `a` is that layer's class activation map divided by the number of positions;
    the same for every memory layout inside `f`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a module path such as `"layer4"`, a `jax.named_scope` or a `checkpoint_name`. By
            default the last layer with a spatial extent, pools left out: the ReLU of a VGG's last
            convolution, the end of a ResNet's `layer4`.
        relu: whether evidence against the class is dropped, as in the paper.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: one forward pass, and a backward pass down to
        the layer.

    Raises:
        ValueError: if the layer is unknown; the known ones are listed.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[2.0, -1.0]])
        >>> a = grad_cam(f, layer="features")(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
        >>> a.shape, a.max().item()
        ((1, 2, 2, 1), 2.0)

    Reference:
        Selvaraju et al., Grad-CAM, ICCV 2017.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        value, gradient = at_layer(f, x, target, layer)
        cam = (gradient.mean((1, 2), keepdims=True) * value).sum(-1, keepdims=True)
        return resize(jnp.maximum(cam, 0) if relu else cam, (x.shape[1], x.shape[2]))

    return attribution(f, explain)


def guided_grad_cam(f: Fun, *, layer: str | None = None) -> Attribution:
    """Multiply guided backpropagation with Grad-CAM.

        a = guided_backprop(x) * grad_cam(x)      (section 3.2)

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.
        layer: the layer of Grad-CAM.

    Returns:
        An attribution of the shape of `x`. Cost: that of both.

    Raises:
        UnsupportedOperation: as `guided_backprop` does.
        ValueError: as `grad_cam` does.

    Reference:
        Selvaraju et al., Grad-CAM, ICCV 2017.

    Differs from Captum, which enlarges the map by nearest neighbours.
    """
    fine, coarse = guided_backprop(f), grad_cam(f, layer=layer)

    def explain(x: Array, target: Array, key: object) -> Array:
        return fine(x, target) * coarse(x, target)

    return attribution(f, explain)


def grad_cam_plus_plus(f: Fun, *, layer: str | None = None) -> Attribution:
    """Weight a layer's channels by their positive gradients, each position by its own share.

        w_c = sum_ij alpha_ijc max(g_ijc, 0),    alpha = 1 / (2 + g_ijc sum_ab A_abc)      (eq. 19)
        a = max( sum_c w_c A_c, 0 )

    resized bilinearly to the image; `g = dy_t / dA`. The paper differentiates `exp(y_t)` instead,
    whose derivatives are powers of `g` times `exp(y_t)`: of that only one positive factor for the
    whole map is left, and it is left out. Laws: equals the paper's formula with its second and
    third derivatives; dividing the layer by a number, and multiplying by it later, changes nothing.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`. The formula is meant for values that are not negative.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: as `grad_cam`.

    Raises:
        ValueError: as `grad_cam` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[2.0, -1.0]])
        >>> a = grad_cam_plus_plus(f, layer="features")(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
        >>> round(a.max().item(), 4)  # 4 positions of 2 / (2 + 2 * 4)
        0.8

    Reference:
        Chattopadhay, Sarkar, Howlader and Balasubramanian, Grad-CAM++, WACV 2018.

    Differs from pytorch-grad-cam, which adds 1e-6 to the denominator before `g^2` is cancelled, so
    that small gradients count for less.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        value, gradient = at_layer(f, x, target, layer)
        weights = plus_plus_weights(value, gradient)
        cam = (weights[:, None, None] * value).sum(-1, keepdims=True)
        return resize(jnp.maximum(cam, 0), (x.shape[1], x.shape[2]))

    return attribution(f, explain)


def plus_plus_weights(value: Array, gradient: Array, *, epsilon: float = 0.0) -> Array:
    """Return Grad-CAM++'s weight of each channel, `(B, C)`.

    Args:
        value: of the layer, `(B, h, w, C)`.
        gradient: of the logit with respect to it.
        epsilon: added to `2 g^2 + g^3 sum A`; 0 in the paper.
    """
    rising = gradient > 0
    g = jnp.where(rising, gradient, 1)
    below = 2 + g * value.sum((1, 2), keepdims=True) + epsilon / g**2
    share = jnp.where(rising & (below != 0), g / jnp.where(below == 0, 1, below), 0)
    return share.sum((1, 2))


class Channels(NamedTuple):
    """A layer's value and the gradient with respect to it, `(B, h, w, C)` each."""

    value: Array
    gradient: Array


def at_layer(f: Fun, x: Array, target: Array, layer: str | None) -> Channels:
    """Return what the channels of a layer hold, and how the logit of the target grows with it."""
    halves = split(f, x, layer=layer)
    value = halves.before(x)
    logits, pull = jax.vjp(lambda v: halves.after(v, x), value)
    (gradient,) = pull(one_hot(target, logits))
    return Channels(*(channels_last(a, halves, layer) for a in (value, gradient)))


def channels_last(value: Array, halves: Split, layer: str | None) -> Array:
    """Return a layer's value as `(B, h, w, C)`, or raise `ValueError` if it has other axes."""
    if value.ndim != 4:
        raise ValueError(
            f"layer {layer!r} has shape {value.shape}; expected (batch, height, width, channels)"
        )
    return jnp.moveaxis(value, halves.channel_axis, -1)
