"""How each paper reads the maps of the methods that it compares with, as one number a pixel.

DMBP multiplies the gradient methods by the image, "from now on" (section 3). LPR takes magnitudes
for saliency, and multiplies by the image elsewhere (section 4.3, eq. 3). TR-GBP takes magnitudes
for saliency (section 1), and for guided backpropagation and guided integrated gradients where the
least relevant pixels are removed (appendix D). RSP reads all maps as they are, channels summed.
What a table takes, its first lines say; those of `docs/metrics.md` read all maps as they are, and
have rows for the other readings.
"""

from collections.abc import Callable, Mapping

import jax

import jaxattr
from jaxattr import metrics

Reading = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps `(B, H, W, C)` and images to one number a pixel, `(B, H, W)`."""


def signed(a: jax.Array, x: jax.Array) -> jax.Array:
    """Sum the channels."""
    return jaxattr.heatmap(a)


def times_image(a: jax.Array, x: jax.Array) -> jax.Array:
    """Multiply by the image, and sum the channels."""
    return jaxattr.heatmap(a * x)


def magnitude(a: jax.Array, x: jax.Array) -> jax.Array:
    """Sum the channels' magnitudes."""
    return metrics.magnitude_sum(a)


GRADIENTS = ("saliency", "smoothgrad", "guided_backprop", "deconvnet", "guided_grad_cam")
DMBP: Mapping[str, Reading] = dict.fromkeys(GRADIENTS, times_image)
LPR: Mapping[str, Reading] = {
    **dict.fromkeys(("smoothgrad", "guided_backprop", "deconvnet"), times_image),
    "saliency": magnitude,
}
TR_GBP: Mapping[str, Reading] = {"saliency": magnitude}
TR_GBP_LEAST: Mapping[str, Reading] = dict.fromkeys(
    ("saliency", "guided_backprop", "guided_integrated_gradients"), magnitude
)
RSP: Mapping[str, Reading] = {}


def reading(paper: Mapping[str, Reading], method: str) -> Reading:
    """Return how a paper reads a method's maps.

    >>> reading(DMBP, "saliency").__name__, reading(DMBP, "dmbp").__name__
    ('times_image', 'signed')
    """
    return paper.get(method, signed)
