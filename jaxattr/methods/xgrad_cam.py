"""XGrad-CAM: a layer's channels, weighted by their gradients where they are active."""

import jax.numpy as jnp

from jaxattr.facts import method
from jaxattr.methods.layers import Channels, cam
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def xgrad_cam(
    f: Fun, *, layer: Layer | None = None, grid: Grid = None, relu: bool = True
) -> Attribution:
    """Weight a layer's channels by their gradients, averaged by what the channels hold.

        w_c = sum_ij A_ijc / (sum_ab A_abc) dy_t / dA_ijc,    a = max( sum_c w_c A_c, 0 )

    resized bilinearly to the image; a channel that sums to 0 counts for nothing. Laws: the map at
    the layer's size, `relu=False`, sums to what `hires_cam` does, which is the logit without its
    bias where one affine layer follows (the paper's conservation); where the gradient of a channel
    is the same everywhere, `grad_cam`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`. The formula is meant for values that are not negative.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        relu: whether evidence against the class is dropped.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: as `grad_cam`.

    Raises:
        ValueError: as `grad_cam` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).reshape(1, 2) @ jnp.array([[2.0], [-1.0]])
        >>> a = xgrad_cam(f, layer="features")
        >>> a(jnp.array([[[[3.0], [1.0]]]]), jnp.array([0])).ravel()  # (3 * 2 - 1) / 4 of each
        Array([3.75, 1.25], dtype=float32)

    Reference:
        Fu, Hu, Dong, Guo, Gao and Li, Axiom-based Grad-CAM, BMVC 2020.

    Differs from pytorch-grad-cam, which adds 1e-7 to the sum below.
    """

    def weigh(channels: Channels) -> Array:
        value, gradient = channels
        total = value.sum((1, 2), keepdims=True)
        share = jnp.where(total == 0, 0, value / jnp.where(total == 0, 1, total))
        return (share * gradient).sum((1, 2), keepdims=True) * value

    return cam(f, weigh, layer=layer, grid=grid, relu=relu)
