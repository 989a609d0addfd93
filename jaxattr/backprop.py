"""Gradients with another rule at the non-linearities."""

from jaxattr.rules import gates
from jaxattr.targets import attribution, class_gradient
from jaxattr.tracing.local import Rule
from jaxattr.tracing.rewrite import with_rules
from jaxattr.types import Attribution, Fun


def guided_backprop(f: Fun) -> Attribution:
    """Attribute by backpropagation that lets only positive gradients back through activations.

        g_in = max(g_out, 0) * s(z)

    `s` is the slope of the activation at its input `z`: `1[z > 0]` for a ReLU, however it is
    written, `1[0 < z < 6]` for a ReLU6, the derivative for a smooth one. Laws: equals a dense
    Jacobian reference; the same map for every spelling of the ReLU.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.

    Returns:
        An attribution of the shape of `x`. Cost: one forward and one backward pass.

    Raises:
        UnsupportedOperation: if `f` contains a non-linearity that is no activation, pool, product
            or normalisation, such as a sort.
        ValueError: if `f` contains no activation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: -jax.nn.relu(x).reshape(1, 2) @ jnp.array([[1.0], [-1.0]])
        >>> guided_backprop(f)(jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([0., 1.], dtype=float32)

    Reference:
        Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for simplicity, ICLR workshop 2015.

    Differs from Captum and zennit, which give the plain gradient where a ReLU is a function or a
    ReLU6 or a SiLU stands in its place.
    """
    return _gated(f, gates.guided)


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
    return _gated(f, gates.deconvolution)


def _gated(f: Fun, rule: Rule) -> Attribution:
    g = with_rules(f, {"activation": rule}, needs=["activation"])
    return attribution(f, lambda x, target, key: class_gradient(g, x, target))
