"""Saliency: the gradient of the class score."""

from jaxattr.contract import attribution, class_gradient
from jaxattr.facts import method
from jaxattr.tracing.transform import lowered
from jaxattr.types import Attribution, Fun


@method(cost="1 forward, 1 backward", family="gradients")
def saliency(f: Fun) -> Attribution:
    """Attribute the gradient of the class score to each pixel.

        a = d f(x)[t] / dx

    The sign is kept; the saliency map of the paper is `jnp.abs(a).max(-1)`. Law: equals `jax.grad`
    of the logit.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.

    Returns:
        An attribution of the shape of `x`, in logits per unit of `x`. Cost: one forward and one
        backward pass.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: jnp.stack([3 * x.sum((1, 2, 3)), x.sum((1, 2, 3))], -1)
        >>> saliency(f)(jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([3., 3.], dtype=float32)

    Reference:
        Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, ICLR workshop 2014.
    """
    g = lowered(f)
    return attribution(f, lambda x, target, key: class_gradient(g, x, target))
