"""Figures of attribution maps, by matplotlib and without a display."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

_TONES = ("#134b8a", "#3f8ec0", "#a5cee3", "#ffffff", "#f9bfa0", "#e0654f", "#a81529")

SIGNED = LinearSegmentedColormap.from_list("signed", _TONES)
"""Evidence against the class in blue, none in white, evidence for it in red."""

POSITIVE = LinearSegmentedColormap.from_list("positive", _TONES[3:])
"""The red half of `SIGNED`, for maps without negative values."""

PERCENTILE = 99.5

_PANEL, _GAP, _HEAD, _FOOT = 2.0, 0.125, 0.25, 0.625  # inches
_DPI = 160  # at least
_ROUNDING = 1e-3  # beyond [0, 1], of a photograph that was normalized and is no longer
_INK, _FAINT, _BAR = "0.15", "0.75", "0.88"  # grays


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
    values = _plane(a)
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
    photograph, painted = _photograph(image), paint(a, percentile=percentile, colors=colors)
    if photograph.shape != painted.shape:
        raise ValueError(
            f"the map is {painted.shape[:2]}, the photograph {photograph.shape[:2]}: resize the "
            "map first, e.g. with jaxattr.maps.resize"
        )
    gray = photograph @ np.array([0.299, 0.587, 0.114])
    return painted * (0.45 + 0.55 * gray[..., None])


def figure(
    image: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    classes: Sequence[tuple[str, float]] = (),
    target: int | None = None,
    percentile: float = PERCENTILE,
    shared_scale: bool = False,
    columns: int = 5,
) -> Figure:
    """Draw a photograph and its attribution maps side by side.

    Maps of one channel, which come at a coarse resolution, are laid over the photograph; maps of
    more are drawn on their own, their channels summed. Each has its color bar, in the units of
    the map, for the scales of methods do not compare; maps of one method may share one.

    Args:
        image: the photograph as the model saw it: RGB `(H, W, 3)` or gray `(H, W)`, `(H, W, 1)`,
            of integers from 0 to 255 or of floats in [0, 1].
        maps: from titles to maps `(H, W)`, `(H, W, 1)` or `(H, W, C)`.
        classes: names and probabilities, listed below the photograph; there is room for three.
        target: which of `classes` is explained, printed bold.
        percentile: where colors saturate, see `scale`.
        shared_scale: whether one color means the same value in all maps.
        columns: panels in a row, the photograph's included.

    Returns:
        A figure without pyplot's state: `.savefig("maps.png")`, or the last line of a notebook's
        cell, where it shows itself.

    Raises:
        ValueError: if a map has another size than the photograph, a value that is not finite, or
            the photograph's values are others, as those of a model's normalized input.
    """
    photograph = _photograph(image)
    result, slots = _layout(1 + len(maps), columns, photograph.shape[:2])
    _show(slots[0].panel, photograph, "photograph")
    _list_classes(slots[0].foot, classes, target)
    everything = [np.concatenate([_plane(a).ravel() for a in maps.values()])] if maps else []
    for slot, (title, a) in zip(slots[1:], maps.items(), strict=True):
        coarse = np.ndim(a) == 3 and np.shape(a)[-1] == 1
        ground = photograph if coarse else np.ones_like(photograph)
        colors = scale(everything[0] if shared_scale else _plane(a), percentile=percentile)
        _show(slot.panel, overlay(ground, a, colors=colors), title)
        _color_bar(slot.foot, colors)
    return result


class _Shown(Figure):
    """A figure that a notebook shows, without pyplot."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


class _Slot(NamedTuple):
    """A panel, and what stands below it."""

    panel: Axes
    foot: Axes


def _layout(count: int, columns: int, size: tuple[int, int]) -> tuple[Figure, list[_Slot]]:
    """Place panels of a fixed width in inches, so that text has the same size in any figure.

    A pixel of the maps is a whole number of the figure's: nothing is blurred or left out.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}; expected at least 1")
    columns = min(count, columns)
    rows = -(-count // columns)
    tall = _PANEL * size[0] / size[1]
    step_x, step_y = _PANEL + _GAP, _HEAD + tall + _FOOT
    width, height = columns * step_x + _GAP, rows * step_y
    per_pixel = math.ceil(_DPI * _PANEL / size[1])
    result = _Shown(figsize=(width, height), dpi=per_pixel * size[1] / _PANEL, facecolor="white")

    def place(x: float, y: float, h: float) -> Axes:
        return result.add_axes((x / width, 1 - (y + h) / height, _PANEL / width, h / height))

    slots = []
    for i in range(count):
        x, y = _GAP + i % columns * step_x, i // columns * step_y + _HEAD
        slots.append(_Slot(place(x, y, tall), place(x, y + tall, _FOOT)))
    return result, slots


def _show(panel: Axes, picture: np.ndarray, title: str) -> None:
    panel.imshow(picture, interpolation="nearest", aspect="auto")
    panel.set_title(title, fontsize=9, color=_INK, pad=4, parse_math=False)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set(color=_FAINT, linewidth=0.5)


def _list_classes(foot: Axes, classes: Sequence[tuple[str, float]], target: int | None) -> None:
    """Write names and probabilities, one below the other, each on a bar as long as it is likely."""
    foot.set(xlim=(0, 1), ylim=(_FOOT, 0))
    foot.set_axis_off()
    for i, (name, probability) in enumerate(classes):
        y, weight = 0.135 + 0.155 * i, "bold" if i == target else "normal"
        foot.barh(y, probability, 0.125, color=_BAR)
        short = textwrap.shorten(name, 26, placeholder=" ...")
        for x, text, side in ((0.02, short, "left"), (0.98, f"{100 * probability:.1f} %", "right")):
            style = {"size": 7, "weight": weight, "color": _INK, "parse_math": False}
            foot.text(x, y + 0.005, text, ha=side, va="center", **style)


def _color_bar(foot: Axes, colors: ScalarMappable) -> None:
    foot.set_axis_off()
    strip = foot.inset_axes((0, 1 - 0.14 / _FOOT, 1, 0.07 / _FOOT))
    bar = Colorbar(strip, colors, orientation="horizontal")
    ends = sorted({*colors.get_clim(), 0})
    bar.set_ticks(ends, labels=[f"{v:.2g}".replace("-", "\N{MINUS SIGN}") for v in ends])
    bar.ax.tick_params(labelsize=7, labelcolor=_INK, length=0, pad=2)
    bar.outline.set(edgecolor=_FAINT, linewidth=0.5)
    labels = bar.ax.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")


def _photograph(image: ArrayLike) -> np.ndarray:
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


def _plane(a: ArrayLike) -> np.ndarray:
    """Return a map as `(H, W)`, its channels summed."""
    values = np.asarray(a)
    if values.ndim not in (2, 3):
        raise ValueError(
            f"the map has shape {values.shape}; expected (height, width), or channels behind it"
        )
    return values if values.ndim == 2 else values.sum(-1)
