"""ROAR and KAR: remove, or keep, the attributed pixels of a dataset, and retrain."""

import jax.numpy as jnp

from jaxattr.contract import is_concrete, resolve_baseline
from jaxattr.deprecated import renamed_options
from jaxattr.image.maps import heatmap
from jaxattr.image.order import descending
from jaxattr.metrics.arguments import check_range
from jaxattr.metrics.reductions import Reduction, finite, reduced
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

    Do so to training and test images, train from scratch, and report the accuracy on the test
    images: the better the map, the lower. Compare with random maps and `smoothgrad_squared`. A
    negated attribution keeps those pixels and replaces the others (KAR).

    Args:
        x: images `(B, H, W, C)` of any real dtype.
        attribution: maps `(B, H, W)` or `(B, H, W, C)`. Ties are broken in reading order.
        fraction: the share of the pixels that are replaced, 0.1 to 0.9 in the paper, one number.
            No other fraction needs a new compilation.
        baseline: what they are replaced by: the training images' mean, a number for each channel
            `(C,)`, which is 0 once they are normalized.
        reduce: how the channels of an attribution become one number.

    Returns:
        Images of the shape and dtype of `x`, all NaN where the map is not finite, so that none goes
        unnoticed.

    Raises:
        ValueError: if shapes do not fit, `fraction` is out of range, or `x` is of an integer dtype,
            which cannot hold `baseline`, or the NaN of a map that is not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(1.0, 5).reshape(1, 2, 2, 1)
        >>> roar(x, x, fraction=0.5).ravel().tolist()
        [1.0, 2.0, 0.0, 0.0]

    Reference:
        Hooker, Erhan, Kindermans and Kim, A benchmark for interpretability methods in deep neural
        networks, NeurIPS 2019.
    """
    x = jnp.asarray(x)
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; expected images (batch, height, width, channels)")
    check_range("fraction", fraction, 0, 1)
    scores = reduced(attribution, reduce, x.shape[:3])
    number = jnp.rint(jnp.asarray(fraction) * (x.shape[1] * x.shape[2]))
    gone = (descending(scores) < number)[..., None]
    masked = jnp.where(gone, resolve_baseline(baseline, x), x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.where(finite(scores)[:, None, None, None], masked, jnp.nan)
    if jnp.issubdtype(jnp.asarray(attribution).dtype, jnp.floating):
        _check_finite(finite(scores), x.dtype)
    return masked


def _check_finite(known: Array, dtype: jnp.dtype) -> None:
    """Raise `ValueError` unless maps are known to be finite, where no NaN can tell of it."""
    if not is_concrete(known):
        which = "a map may be not finite under jit"
    elif known.all():
        return
    else:
        which = f"map {int(known.argmin())} is not finite"
    raise ValueError(f"{which}, and {dtype} images hold no NaN to tell: pass images of floats")
