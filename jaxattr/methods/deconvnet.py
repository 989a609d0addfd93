"""Deconvnet: the gradient is rectified at activations, whatever entered them."""

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.methods.layers import at_image_or_layer
from jaxattr.rules import gates
from jaxattr.types import Attribution, Fun, Layer


@method(cost="1 forward, 1 backward", family="backward rules", inner=True)
def deconvnet(f: Fun, *, layer: Layer | None = None) -> Attribution:
    """Attribute by backpropagation that rectifies the gradient instead of gating it.

        g_in = max(g_out, 0)

    Laws and errors as for `guided_backprop`; here the input of the activation plays no part.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.
        layer: as for `saliency`; the activations after it have the rule.

    Returns:
        An attribution of the shape of `x`, or of the layer. Cost: one forward and one backward
        pass.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x).reshape(1, 2) @ jnp.array([[1.0], [-1.0]])
        >>> deconvnet(f)(-jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([1., 0.], dtype=float32)

    Reference:
        Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """
    read = at_image_or_layer(f, layer, {"activation": gates.deconvolution}, needs=["activation"])
    return attribution(f, lambda x, target, key: read(x, target).gradient, has_rules=True)
