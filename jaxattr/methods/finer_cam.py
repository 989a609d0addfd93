"""Finer-CAM: Grad-CAM of what tells a class from those most like it."""

import jax
import jax.numpy as jnp

from jaxattr.contract import check_positive
from jaxattr.facts import method
from jaxattr.image.order import largest
from jaxattr.methods.grad_cam import by_mean_gradient
from jaxattr.methods.layers import cam
from jaxattr.scores import chosen, logit
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 1 backward to the layer", family="class activation maps", spatial=True)
def finer_cam(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    classes: int = 3,
    alpha: float = 1.0,
    relu: bool = True,
) -> Attribution:
    """Weight a layer's channels by the mean gradient of how the class differs from similar ones.

        s = sum_d p_d (y_t - alpha y_d) / sum_d p_d,    w_c = mean_ij ds / dA_ijc
        a = max( sum_c w_c A_c, 0 )

    resized bilinearly to the image. The classes `d` are those whose logits are nearest to `y_t`,
    `p_d` their softmax, whose own derivative counts too. Laws: with `alpha = 0` it is `grad_cam`;
    of two classes it is the Grad-CAM of `y_t - alpha y_d`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, two classes or more.
        layer: as for `grad_cam`.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        classes: how many similar classes there are, at most all others.
        alpha: how much of them is subtracted.
        relu: whether evidence against the class is dropped.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: as `grad_cam`.

    Raises:
        ValueError: as `grad_cam` does, if `classes` is not positive, or if there is one class.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[2.0, 1.5]])
        >>> a = finer_cam(f, layer="features")(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
        >>> a.max().item()
        0.5

    Reference:
        Zhang et al., Finer-CAM, CVPR 2025.

    Differs from the authors' code, in which 1e-9 is added to the sum of `p_d`.
    """
    check_positive("classes", classes)

    def finer(logits: Array, target: Array) -> Array:
        ours = logit(logits, target)[:, None]
        others = logits.shape[-1] - 1
        if not others:
            raise ValueError("a classifier of one logit has no other class: take grad_cam")
        distance = jnp.where(chosen(logits, target), jnp.inf, jnp.abs(logits - ours))
        near = largest(-distance, min(classes, others))
        weights = jax.nn.softmax(jnp.take_along_axis(logits, near, 1))
        return (weights * (ours - alpha * jnp.take_along_axis(logits, near, 1))).sum(-1)

    return cam(f, by_mean_gradient, layer=layer, grid=grid, relu=relu, score=finer)
