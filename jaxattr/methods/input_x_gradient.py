"""Input times gradient."""

from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.methods.layers import at_image_or_layer
from jaxattr.types import Array, Attribution, Fun, Layer


@method(cost="1 forward, 1 backward", family="gradients", inner=True)
def input_x_gradient(f: Fun, *, layer: Layer | None = None) -> Attribution:
    """Attribute to each pixel its value times its gradient.

        a = x * d f(x)[t] / dx

    Law: for a network of ReLUs without biases, `a` sums to the logit.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `saliency`, whose value is taken times its gradient.

    Returns:
        An attribution of the shape of `x`, or of the layer, in logits. Cost: one forward and one
        backward pass.

    Raises:
        ValueError: as `saliency` does.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: 3 * x.reshape(1, 2)
        >>> input_x_gradient(f)(jnp.full((1, 1, 2, 1), 2.0), jnp.array([1])).ravel()
        Array([0., 6.], dtype=float32)

    Reference:
        Shrikumar, Greenside, Shcherbina and Kundaje, Not just a black box, 2016.
    """
    read = at_image_or_layer(f, layer)

    def explain(x: Array, target: Array, key: object) -> Array:
        value, gradient = read(x, target)
        return value * gradient

    return attribution(f, explain)
