"""HiResCAM: a layer's channels, each position weighted by its own gradient."""

from jaxattr.facts import method
from jaxattr.methods.layers import Channels, cam
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def hires_cam(
    f: Fun, *, layer: Layer | None = None, grid: Grid = None, relu: bool = True
) -> Attribution:
    """Weight each position of a layer's channels by its own gradient.

        a = max( sum_c dy_t / dA_c * A_c, 0 )

    resized bilinearly to the image. Laws: where one affine layer follows, the map at the layer's
    size, `relu=False`, sums to the logit without its bias; where a global average pool and a dense
    layer follow, it is `grad_cam`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
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
        >>> a = hires_cam(f, layer="features", relu=False)
        >>> a(jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([ 2., -1.], dtype=float32)

    Reference:
        Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of
        convolutional neural networks, 2020.
    """

    def weigh(channels: Channels) -> Array:
        return channels.gradient * channels.value

    return cam(f, weigh, layer=layer, grid=grid, relu=relu)
