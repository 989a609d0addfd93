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
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxattr.viz.colors import PERCENTILE, overlay, photograph_of, plane, scale

_PANEL, _GAP, _HEAD, _FOOT = 2.0, 0.125, 0.25, 0.625  # inches
_DPI = 160  # at least
_INK, _FAINT, _BAR = "0.15", "0.75", "0.88"  # grays


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
    photograph = photograph_of(image)
    result, slots = _layout(1 + len(maps), columns, photograph.shape[:2])
    _show(slots[0].panel, photograph, "photograph")
    _list_classes(slots[0].foot, classes, target)
    everything = [np.concatenate([plane(a).ravel() for a in maps.values()])] if maps else []
    for slot, (title, a) in zip(slots[1:], maps.items(), strict=True):
        coarse = np.ndim(a) == 3 and np.shape(a)[-1] == 1
        ground = photograph if coarse else np.ones_like(photograph)
        colors = scale(everything[0] if shared_scale else plane(a), percentile=percentile)
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
