"""Eigen-Grad-CAM: the first principal component of a layer times its gradient."""

from jaxattr.facts import method
from jaxattr.methods.eigen_cam import principal
from jaxattr.methods.layers import Channels, cam
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def eigen_grad_cam(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    center: bool = False,
    relu: bool = True,
) -> Attribution:
    """Project a layer's channels times their gradients on their first principal direction.

        A * dy_t / dA = U S V^T,    a = max( (A * dy_t / dA) v_1, 0 )

    as `eigen_cam` does of the channels alone, so that it depends on the class; its sign is found in
    the same way. Law: of a layer of one channel it is `hires_cam` up to that sign.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        center: whether each channel's mean is subtracted first, as pytorch-grad-cam does.
        relu: whether negative values are dropped.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: as `grad_cam`, and a singular value
        decomposition of the layer.

    Raises:
        ValueError: as `grad_cam` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[1.0], [2.0]])
        >>> x = jnp.array([[[[3.0, 2.0], [0.0, 0.0]]]])
        >>> eigen_grad_cam(f, layer="features")(x, jnp.array([0])).ravel().round(4)
        Array([5., 0.], dtype=float32)

    Reference:
        Gildenblat and contributors, pytorch-grad-cam, 2021, after Muhammad and Yeasin, Eigen-CAM,
        IJCNN 2020.
    """

    def weigh(channels: Channels) -> Array:
        return principal(channels.gradient * channels.value, center=center)

    return cam(f, weigh, layer=layer, grid=grid, relu=relu)
