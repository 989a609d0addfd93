"""The similarity of two maps: rank correlation and SSIM."""

import jax.numpy as jnp
import numpy as np

from jaxattr.deprecated import renamed_options
from jaxattr.image.filters import gaussian, inner_matrix, rounded_reach
from jaxattr.image.linear import separable
from jaxattr.image.maps import heatmap
from jaxattr.metrics.arguments import check_range
from jaxattr.metrics.correlation import spearman
from jaxattr.metrics.reductions import Reduction, finite, reduced
from jaxattr.metrics.results import Score, scored
from jaxattr.types import Array

_FLOATS = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def rank_correlation(a: Array, b: Array, *, reduce: Reduction = heatmap) -> Score:
    """Correlate the ranks of the pixels of two maps (Spearman).

        score = corr(rank a, rank b)

    Pixels of the same score share the mean of their ranks. Law: unchanged when an increasing
    function is applied to either map.

    Args:
        a: maps `(B, H, W)` or `(B, H, W, C)`.
        b: maps to compare with, of the same height and width.
        reduce: how the channels become one number; with `magnitude_sum` signs do not matter.

    Returns:
        Correlations in [-1, 1]; no score where a map is constant or not finite.

    Raises:
        ValueError: if the maps differ in height or width.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
        >>> round(rank_correlation(a, -jnp.exp(a)).score.item(), 6)
        -1.0

    Reference:
        Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018.
    """
    a, b = _pair(a, b, reduce)
    x, y = (s.reshape(len(s), s.shape[1] * s.shape[2]) for s in (a, b))
    return scored(spearman(x, y), finite(a) & finite(b))


def box_window(*, size: int = 7) -> np.ndarray:
    """Return equal weights, the window that scikit-image's SSIM takes by default.

    Args:
        size: their number, odd.

    Returns:
        `(size,)`, with the sum 1.
    """
    _check_odd(size)
    return np.full(size, 1 / size)


def gaussian_window(*, sigma: float = 1.5) -> np.ndarray:
    """Return Gaussian weights up to 3.5 standard deviations: 11 of them in the paper of SSIM.

    Args:
        sigma: the standard deviation in pixels.

    Returns:
        An odd number of weights, with the sum 1.
    """
    return gaussian(sigma, rounded_reach(sigma, 3.5))


@renamed_options(window="weights")
def ssim(
    a: Array,
    b: Array,
    *,
    data_range: float | None = None,
    weights: np.ndarray | None = None,
    sample_covariance: bool = True,
    reduce: Reduction = heatmap,
) -> Score:
    """Compare two maps by their structural similarity.

        ssim = (2 m_a m_b + c1) (2 v_ab + c2) / ((m_a^2 + m_b^2 + c1) (v_a + v_b + c2)),
        c1 = (0.01 L)^2,  c2 = (0.03 L)^2

    with means `m` and covariances `v` in a window, averaged over all windows that lie within the
    map. Defaults are those of scikit-image.

    Args:
        a: maps `(B, H, W)` or `(B, H, W, C)`, on a scale that both share: see `maps.unit_range`
            and `maps.normalize`.
        b: maps to compare with, of the same height and width.
        data_range: L, the distance between the smallest and the largest value possible: 1 after
            `unit_range`, 2 after `normalize`. By default that between the smallest and the largest
            value of either map of an image. What is small beside it counts as equal.
        weights: of a window along each axis, an odd number with the sum 1: `box_window()`, or
            `gaussian_window()` as in the paper.
        sample_covariance: whether covariances are those of a sample, larger by n / (n - 1) for the
            n pixels of a window.
        reduce: how the channels become one number.

    Returns:
        Similarities in [-1, 1], 1 for equal maps; no score where a map is not finite.

    Raises:
        ValueError: if the window is even or larger than the maps, these differ in height or width,
            or `data_range` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.linspace(0, 1, 64).reshape(1, 8, 8)
        >>> round(ssim(a, a).score.item(), 4), ssim(a, 1 - a).score.item() < 0
        (1.0, True)

    Reference:
        Wang, Bovik, Sheikh and Simoncelli, Image quality assessment, IEEE Transactions on Image
        Processing 13(4), 2004.
    """
    a, b = _pair(a, b, reduce)
    window = box_window() if weights is None else np.asarray(weights)
    _check_odd(*window.shape)
    if len(window) > min(a.shape[1:]):
        raise ValueError(f"the window has {len(window)} pixels, the maps have {a.shape[1:]}")
    number = len(window) ** 2
    unbias = number / (number - 1) if sample_covariance else 1.0
    if data_range is not None:
        check_range("data_range", data_range, *_FLOATS)
    valid = finite(a) & finite(b)
    # covariances do not depend on a shift; close to the mean they lose fewer digits
    low, high = (jnp.where(valid[:, None, None], s, 0) for s in (a, b))
    shift = (low.mean((1, 2), keepdims=True), high.mean((1, 2), keepdims=True))
    x, y = low - shift[0], high - shift[1]
    mx, my, xx, yy, xy = (_average(s, window) for s in (x, y, x * x, y * y, x * y))
    vx, vy, vxy = (unbias * v for v in (xx - mx * mx, yy - my * my, xy - mx * my))
    mx, my = mx + shift[0], my + shift[1]
    reach = _reach(low, high) if data_range is None else data_range
    c1, c2 = (0.01 * reach) ** 2, (0.03 * reach) ** 2
    similar = (2 * mx * my + c1) * (2 * vxy + c2)
    found = similar / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return scored(found.mean((1, 2)), valid)


def _check_odd(*shape: int) -> None:
    if len(shape) != 1 or shape[0] < 3 or shape[0] % 2 == 0:
        raise ValueError(
            f"the window has shape {shape}; expected an odd number of pixels, 3 or more"
        )


def _reach(a: Array, b: Array) -> Array:
    """Return the range of both maps of each image, `(B, 1, 1)`; 1 where both are one constant."""
    reach = jnp.ptp(jnp.concatenate([a, b], 1), (1, 2), keepdims=True)
    return jnp.where(reach > 0, reach, 1)


def _pair(a: Array, b: Array, reduce: Reduction) -> tuple[Array, Array]:
    a = reduced(a, reduce)
    return a, reduced(b, reduce, a.shape)


def _average(a: Array, window: np.ndarray) -> Array:
    rows, columns = (inner_matrix(window, n) for n in a.shape[1:])
    return separable(a, rows, columns)
