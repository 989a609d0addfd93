"""The colors of maps: by their signs and magnitudes, alone or over a photograph."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from numpy.typing import ArrayLike

TONES = ("#134b8a", "#3f8ec0", "#a5cee3", "#ffffff", "#f9bfa0", "#e0654f", "#a81529")

SIGNED = LinearSegmentedColormap.from_list("signed", TONES)
"""Evidence against the class in blue, none in white, evidence for it in red."""

POSITIVE = LinearSegmentedColormap.from_list("positive", TONES[3:])
"""The red half of `SIGNED`, for maps without negative values."""

PERCENTILE = 99.5

_ROUNDING = 1e-3  # beyond [0, 1], of a photograph that was normalized and is no longer


def scale(a: ArrayLike, *, percentile: float = PERCENTILE) -> ScalarMappable:
    """Choose the colors of a map.

    A map with negative values is drawn in `SIGNED` from `-v` to `v`, any other in `POSITIVE` from
    0 to `v`, where `v` is a percentile of the magnitudes: a few outliers do not turn the rest
    pale. What lies beyond is drawn in the color of the end.

    Args:
        a: a map of any shape.
        percentile: of `|a|`, from 0 to 100. Where it is zero, in a map that is zero almost
            everywhere, the largest magnitude takes its place.

    Returns:
        `.to_rgba(values)` gives colors, `.norm` the range; a color bar takes it as it is.

    Raises:
        ValueError: if a value is not finite.

    Example:
        >>> scale([[-1.0, 0.0, 3.0]], percentile=100).get_clim()
        (-3.0, 3.0)
        >>> scale([[1.0, 2.0]], percentile=100).get_clim()
        (0.0, 2.0)
    """
    values = np.asarray(a, float)
    if not np.isfinite(values).all():
        raise ValueError(f"a map of shape {values.shape} holds values that are not finite")
    magnitudes = np.abs(values)
    limit = float(np.percentile(magnitudes, percentile)) or float(magnitudes.max()) or 1.0
    if (values < 0).any():
        return ScalarMappable(Normalize(-limit, limit), SIGNED)
    return ScalarMappable(Normalize(0, limit), POSITIVE)


def paint(
    a: ArrayLike, *, percentile: float = PERCENTILE, colors: ScalarMappable | None = None
) -> np.ndarray:
    """Draw a map in the colors of `scale`.

    Args:
        a: a map `(H, W)`, or `(H, W, C)` whose channels are summed first.
        percentile: where colors saturate, see `scale`.
        colors: what `scale` chose for other maps, to compare this one with them.

    Returns:
        An RGB image `(H, W, 3)` of values in [0, 1].

    Raises:
        ValueError: if a value is not finite, or the shape is another one.
    """
    values = plane(a)
    own = scale(values, percentile=percentile)
    return (colors or own).to_rgba(values)[..., :3]


def overlay(
    image: ArrayLike,
    a: ArrayLike,
    *,
    percentile: float = PERCENTILE,
    colors: ScalarMappable | None = None,
) -> np.ndarray:
    """Draw a map like a glaze over the photograph, whose colors are taken out.

    The painted map is multiplied with the photograph in light grays: where the map is zero the
    photograph stays as it is.

    Args:
        image: the photograph: RGB `(H, W, 3)` or gray `(H, W)`, `(H, W, 1)`, of integers from 0
            to 255 or of floats in [0, 1].
        a: a map `(H, W)` or `(H, W, C)` of the same height and width.
        percentile: where colors saturate, see `scale`.
        colors: as for `paint`.

    Returns:
        An RGB image `(H, W, 3)` of values in [0, 1].

    Raises:
        ValueError: if the sizes differ, a value is not finite, or the photograph's values are
            others, as those of a model's normalized input.
    """
    photograph, painted = photograph_of(image), paint(a, percentile=percentile, colors=colors)
    if photograph.shape != painted.shape:
        raise ValueError(
            f"the map is {painted.shape[:2]}, the photograph {photograph.shape[:2]}: resize the "
            "map first, e.g. with jaxattr.maps.resize"
        )
    gray = photograph @ np.array([0.299, 0.587, 0.114])
    return painted * (0.45 + 0.55 * gray[..., None])


def photograph_of(image: ArrayLike) -> np.ndarray:
    """Return RGB `(H, W, 3)` in [0, 1]."""
    values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 3):
        raise ValueError(
            f"the photograph has shape {np.shape(image)}; expected (height, width, 3), or "
            "(height, width) for a gray one"
        )
    whole = np.issubdtype(values.dtype, np.integer)
    unit = values / 255 if whole else values.astype(float)
    low, high = unit.min(), unit.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ValueError(
            f"the photograph holds {values.dtype} from {values.min():.3g} to {values.max():.3g}; "
            "expected integers from 0 to 255 or floats in [0, 1]: undo what the model's "
            "preprocessing does, as x * std + mean, or divide by the largest value there can be"
        )
    return np.broadcast_to(unit.clip(0, 1), (*unit.shape[:2], 3))


def plane(a: ArrayLike) -> np.ndarray:
    """Return a map as `(H, W)`, its channels summed."""
    values = np.asarray(a)
    if values.ndim not in (2, 3):
        raise ValueError(
            f"the map has shape {values.shape}; expected (height, width), or channels behind it"
        )
    return values if values.ndim == 2 else values.sum(-1)
