"""Grad-CAM: a layer's channels, weighted by their mean gradient."""

from jaxattr.facts import method
from jaxattr.methods.layers import Channels, cam
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def grad_cam(
    f: Fun, *, layer: Layer | None = None, grid: Grid = None, relu: bool = True
) -> Attribution:
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
        grid: rows and columns of the layer's tokens, where the function does not tell.
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
    return cam(f, by_mean_gradient, layer=layer, grid=grid, relu=relu)


def by_mean_gradient(channels: Channels) -> Array:
    """Weight channels by their mean gradient."""
    return channels.gradient.mean((1, 2), keepdims=True) * channels.value
