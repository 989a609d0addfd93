"""Saliency: the gradient of the class score."""

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.methods.layers import at_image_or_layer
from jaxattr.types import Attribution, Fun, Layer


@method(cost="1 forward, 1 backward", family="gradients", inner=True)
def saliency(f: Fun, *, layer: Layer | None = None) -> Attribution:
    """Attribute the gradient of the class score to each pixel.

        a = d f(x)[t] / dx

    The sign is kept; the saliency map of the paper is `jnp.abs(a).max(-1)`. Law: equals `jax.grad`
    of the logit. At a layer it is
    the map of the rest of the network, a classifier of that layer's value.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: a module path, a `jax.named_scope` or a `checkpoint_name` whose value is explained
            instead of the image.
            The last value computed under the name is meant.

    Returns:
        An attribution of the shape of `x`, in logits per unit of `x`; at a layer, of its shape
        `(B, h, w, C)`, tokens on their grid. Cost: one forward and one backward pass.

    Raises:
        ValueError: if the layer is unknown (the known ones are listed) or has no rows and columns.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: jnp.stack([3 * x.sum((1, 2, 3)), x.sum((1, 2, 3))], -1)
        >>> saliency(f)(jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([3., 3.], dtype=float32)

    Reference:
        Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, ICLR workshop 2014.
    """
    read = at_image_or_layer(f, layer)
    return attribution(f, lambda x, target, key: read(x, target).gradient)
