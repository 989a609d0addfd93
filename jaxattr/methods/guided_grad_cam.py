"""Guided Grad-CAM: guided backpropagation times Grad-CAM."""

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.methods.grad_cam import grad_cam
from jaxattr.methods.guided_backprop import guided_backprop
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="guided_backprop + grad_cam", family="class activation maps")
def guided_grad_cam(f: Fun, *, layer: Layer | None = None, grid: Grid = None) -> Attribution:
    """Multiply guided backpropagation with Grad-CAM.

        a = guided_backprop(x) * grad_cam(x)      (section 3.2)

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.
        layer: the layer of Grad-CAM.
        grid: as for `grad_cam`.

    Returns:
        An attribution of the shape of `x`. Cost: that of both.

    Raises:
        UnsupportedOperation: as `guided_backprop` does.
        ValueError: as `grad_cam` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[2.0, -1.0]])
        >>> a = guided_grad_cam(f, layer="features")(jnp.ones((1, 1, 2, 1)), jnp.array([0]))
        >>> a.ravel()  # 2 of guided backpropagation times 2 of Grad-CAM
        Array([4., 4.], dtype=float32)

    Reference:
        Selvaraju et al., Grad-CAM, ICCV 2017.

    Differs from Captum, which enlarges the map by nearest neighbors.
    """
    fine, coarse = guided_backprop(f), grad_cam(f, layer=layer, grid=grid)

    def explain(x: Array, target: Array, key: object) -> Array:
        return fine(x, target) * coarse(x, target)

    return attribution(f, explain)
