"""Deconvnet: the gradient is rectified at activations, whatever entered them."""

from jaxattr.contract import attribution, class_gradient
from jaxattr.facts import method
from jaxattr.rules import gates
from jaxattr.tracing.transform import with_rules
from jaxattr.types import Attribution, Fun


@method(cost="1 forward, 1 backward", family="backward rules")
def deconvnet(f: Fun) -> Attribution:
    """Attribute by backpropagation that rectifies the gradient instead of gating it.

        g_in = max(g_out, 0)

    Laws and errors as for `guided_backprop`; here the input of the activation plays no part.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.

    Returns:
        An attribution of the shape of `x`. Cost: one forward and one backward pass.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x).reshape(1, 2) @ jnp.array([[1.0], [-1.0]])
        >>> deconvnet(f)(-jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([1., 0.], dtype=float32)

    Reference:
        Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """
    g = with_rules(f, {"activation": gates.deconvolution}, needs=["activation"])
    return attribution(f, lambda x, target, key: class_gradient(g, x, target), has_rules=True)
