"""Grad-CAM++: a layer's channels, weighted by their positive gradients."""

import jax.numpy as jnp

from jaxattr.facts import method
from jaxattr.methods.layers import Channels, cam
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def grad_cam_plus_plus(f: Fun, *, layer: Layer | None = None, grid: Grid = None) -> Attribution:
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
        grid: rows and columns of the layer's tokens, where the function does not tell.

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

    def weigh(channels: Channels) -> Array:
        return plus_plus_weights(*channels)[:, None, None] * channels.value

    return cam(f, weigh, layer=layer, grid=grid)


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
