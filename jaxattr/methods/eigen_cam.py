"""Eigen-CAM: the first principal component of a layer."""

import jax.numpy as jnp

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.loops.precision import at_least_float32
from jaxattr.methods.layers import drawn
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward to the layer", family="class activation maps", spatial=True)
def eigen_cam(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    center: bool = False,
    relu: bool = True,
) -> Attribution:
    """Project a layer's channels on their first principal direction.

        A = U S V^T,    a = max( A v_1, 0 )

    with a row of `A` for each position and a column for each channel, resized bilinearly to the
    image. It does not depend on the class. A singular vector has no sign of its own: it is the one
    with which the map's largest magnitude is positive (Chung and Ying, Seg-Eigen-CAM, 2025). Laws:
    no value is negative where none of the layer's is; the map's squares at the layer's size sum to
    the largest eigenvalue of `A^T A`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        center: whether each channel's mean is subtracted first, as pytorch-grad-cam does.
        relu: whether negative values are dropped.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: a forward pass to the layer, and a singular
        value decomposition of it.

    Raises:
        ValueError: as `grad_cam` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2))
        >>> x = jnp.array([[[[3.0, 4.0], [0.0, 0.0]]]])
        >>> eigen_cam(f, layer="features")(x, jnp.array([0])).ravel().round(4)
        Array([5., 0.], dtype=float32)

    Reference:
        Muhammad and Yeasin, Eigen-CAM, IJCNN 2020.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        halves = split(f, x, layer=layer, grid=grid)
        value = halves.channels_last(halves.before(x))
        return drawn(principal(value, center=center), x, relu=relu)

    return attribution(f, explain, differentiates=False)


def principal(a: Array, *, center: bool) -> Array:
    """Project positions `(B, h, w, C)` on their first right singular vector, `(B, h, w, 1)`."""
    rows = at_least_float32(a.reshape(a.shape[0], -1, a.shape[-1]))
    rows = rows - rows.mean(1, keepdims=True) if center else rows
    along = jnp.linalg.svd(rows, full_matrices=False)[2][:, :1]
    found = (rows * along).sum(-1)
    falls = found.max(-1, keepdims=True) < -found.min(-1, keepdims=True)
    return jnp.where(falls, -found, found).reshape(*a.shape[:-1], 1).astype(a.dtype)
