"""Guided backpropagation: only positive gradients pass back through activations."""

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.methods.layers import at_image_or_layer
from jaxattr.rules import gates
from jaxattr.types import Attribution, Fun, Layer


@method(cost="1 forward, 1 backward", family="backward rules", inner=True)
def guided_backprop(f: Fun, *, layer: Layer | None = None) -> Attribution:
    """Attribute by backpropagation that lets only positive gradients back through activations.

        g_in = max(g_out, 0) * s(z)

    `s` is the slope of the activation at its input `z`: `1[z > 0]` for a ReLU, however it is
    written, `1[0 < z < 6]` for a ReLU6, the derivative for a smooth one. Laws: equals a dense
    Jacobian reference; the same map for every spelling of the ReLU.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.
        layer: as for `saliency`; the activations after it have the rule.

    Returns:
        An attribution of the shape of `x`, or of the layer. Cost: one forward and one backward
        pass.

    Raises:
        UnsupportedOperation: if `f` contains a non-linearity that is no activation, pool, product
            or normalization, such as a running product.
        ValueError: if `f` contains no activation; as `saliency` does.

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
    read = at_image_or_layer(f, layer, {"activation": gates.guided}, needs=["activation"])
    return attribution(f, lambda x, target, key: read(x, target).gradient, has_rules=True)
