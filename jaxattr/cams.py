"""Class activation maps: what a layer's channels say of a class, drawn over the image."""

import jax
import jax.numpy as jnp

from jaxattr.backprop import guided_backprop
from jaxattr.maps import resize
from jaxattr.targets import attribution, one_hot
from jaxattr.tracing.layers import split
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
        cam = _weighted(f, x, target, layer)
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


def _weighted(f: Fun, x: Array, target: Array, layer: str | None) -> Array:
    """Return `sum_c w_c A_c` at the layer's own resolution, `(B, h, w, 1)`."""
    halves = split(f, x, layer=layer)
    value = halves.before(x)
    if value.ndim != 4:
        raise ValueError(
            f"layer {layer!r} has shape {value.shape}; expected (batch, height, width, channels)"
        )
    logits, pull = jax.vjp(lambda v: halves.after(v, x), value)
    (gradient,) = pull(one_hot(target, logits))
    value, gradient = (jnp.moveaxis(a, halves.channel_axis, -1) for a in (value, gradient))
    weights = gradient.mean((1, 2), keepdims=True)
    return (weights * value).sum(-1, keepdims=True)
