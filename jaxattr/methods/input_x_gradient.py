"""Input times gradient."""

from jaxattr.contract import attribution, class_gradient
from jaxattr.facts import method
from jaxattr.tracing.transform import lowered
from jaxattr.types import Attribution, Fun


@method(cost="1 forward, 1 backward", family="gradients")
def input_x_gradient(f: Fun) -> Attribution:
    """Attribute to each pixel its value times its gradient.

        a = x * d f(x)[t] / dx

    Law: for a network of ReLUs without biases, `a` sums to the logit.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: one forward and one backward pass.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: 3 * x.reshape(1, 2)
        >>> input_x_gradient(f)(jnp.full((1, 1, 2, 1), 2.0), jnp.array([1])).ravel()
        Array([0., 6.], dtype=float32)

    Reference:
        Shrikumar, Greenside, Shcherbina and Kundaje, Not just a black box, 2016.
    """
    g = lowered(f)
    return attribution(f, lambda x, target, key: x * class_gradient(g, x, target))
