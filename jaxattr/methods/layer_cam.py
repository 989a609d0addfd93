"""LayerCAM: a layer's channels, each position weighted by its own positive gradient."""

import jax.numpy as jnp

from jaxattr.facts import method
from jaxattr.methods.layers import Channels, cam
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def layer_cam(f: Fun, *, layer: Layer | None = None, grid: Grid = None) -> Attribution:
    """Weight each position of a layer's channels by its own positive gradient.

        a = max( sum_c max(dy_t / dA_c, 0) A_c, 0 )

    resized bilinearly to the image. It draws early layers too, where a channel's mean gradient says
    little of a single position. Law: where no gradient is negative, `hires_cam`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
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
        >>> f = lambda x: features(x).reshape(1, 2) @ jnp.array([[2.0], [-1.0]])
        >>> layer_cam(f, layer="features")(jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([2., 0.], dtype=float32)

    Reference:
        Jiang, Zhang, Hou, Cheng and Wei, LayerCAM, IEEE Transactions on Image Processing 2021.

    Differs from the authors' code in leaving the map of an early layer as it is, where they take
    `tanh(2 a / max a)` before they add it to that of a late one.
    """

    def weigh(channels: Channels) -> Array:
        return jnp.maximum(channels.gradient, 0) * channels.value

    return cam(f, weigh, layer=layer, grid=grid)
