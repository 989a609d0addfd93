"""Remove and retrain: take the attributed pixels out of a dataset."""

import jax.numpy as jnp

from jaxattr.contract import resolve_baseline
from jaxattr.deprecated import renamed_options
from jaxattr.image.maps import heatmap
from jaxattr.image.order import descending
from jaxattr.metrics.ranking import Reduction, finite, reduced
from jaxattr.types import Array, Baseline


@renamed_options(fill="baseline")
def roar(
    x: Array,
    attribution: Array,
    *,
    fraction: float | Array,
    baseline: Baseline = 0.0,
    reduce: Reduction = heatmap,
) -> Array:
    """Replace the most attributed pixels of images by the mean (ROAR).

    Do so to training and test images, train anew from scratch, and report the accuracy on the test
    images: the better the map, the lower. Random maps and `smoothgrad_squared` are what to compare
    with. A negated attribution keeps those pixels and replaces the others (KAR).

    Args:
        x: images `(B, H, W, C)`.
        attribution: maps `(B, H, W)` or `(B, H, W, C)`. Ties are broken in reading order.
        fraction: of the pixels, how many go: 0.1 to 0.9 in the paper. Nothing is compiled anew
            for another.
        baseline: what takes their place: the training images' mean, a number for each channel
            `(C,)`, which is 0 once they are normalized.
        reduce: how the channels of an attribution become one number.

    Returns:
        Images of the shape and dtype of `x`, all NaN where the map is not finite, so that none is
        taken for another.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(1.0, 5).reshape(1, 2, 2, 1)
        >>> roar(x, x, fraction=0.5).ravel().tolist()
        [1.0, 2.0, 0.0, 0.0]

    Reference:
        Hooker, Erhan, Kindermans and Kim, A benchmark for interpretability methods in deep neural
        networks, NeurIPS 2019.
    """
    scores = reduced(attribution, reduce, x.shape[:3])
    number = jnp.rint(jnp.asarray(fraction) * scores[0].size)
    gone = (descending(scores) < number)[..., None]
    masked = jnp.where(gone, resolve_baseline(baseline, x), x)
    return jnp.where(finite(scores)[:, None, None, None], masked, jnp.nan)
