"""A figure to touch: a slider blends map and photograph, the pointer reads values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import ArrayLike

from jaxattr.viz.colors import PERCENTILE, photograph_of, plane, scale

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SIDE = 420  # pixels


def interactive(
    image: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    percentile: float = PERCENTILE,
    shared_scale: bool = False,
) -> Figure:
    """Draw a photograph under its attribution maps, to be looked at in a notebook or a browser.

    A slider blends the map with the photograph, a menu chooses the map, and the pointer shows a
    pixel's attribution. Channels are summed, colors are those of `figure`.

    Args:
        image: as for `figure`.
        maps: from titles to maps `(H, W)`, `(H, W, 1)` or `(H, W, C)` of the photograph's size.
        percentile: where colors saturate, see `scale`.
        shared_scale: whether one color means the same value in all maps.

    Returns:
        A plotly figure: it shows itself as the last line of a notebook's cell, and
        `.write_html("map.html")` makes a page of it.

    Raises:
        ModuleNotFoundError: without plotly.
        ValueError: if there is no map, or one has another size than the photograph or a value that
            is not finite, or the photograph's values are those of a model's normalized input.

    Example:
        >>> maps = {"one": [[0.0, 1.0], [-2.0, 0.0]]}
        >>> shown = interactive(np.zeros((2, 2, 3)), maps, percentile=100)
        >>> [trace.type for trace in shown.data], shown.data[1].zmin
        (['image', 'heatmap'], -2.0)
    """
    try:
        from plotly import graph_objects as go
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "interactive figures are plotly's, which is not installed: "
            "pip install 'jaxattr[notebook]'",
            name="plotly",
        ) from error
    photograph, planes = photograph_of(image), {k: plane(a) for k, a in maps.items()}
    if not planes:
        raise ValueError("there is no map to draw")
    for title, values in planes.items():
        if values.shape != photograph.shape[:2]:
            raise ValueError(
                f"the map {title!r} is {values.shape}, the photograph {photograph.shape[:2]}: "
                "resize the map first, e.g. with jaxattr.maps.resize"
            )
    everything = np.concatenate([values.ravel() for values in planes.values()])
    figure = go.Figure(go.Image(z=np.uint8(255 * photograph), hoverinfo="skip"))
    for i, (title, values) in enumerate(planes.items()):
        colors = scale(everything if shared_scale else values, percentile=percentile)
        low, high = colors.get_clim()
        steps = np.linspace(0, 1, 33)
        figure.add_heatmap(
            z=values,
            zmin=low,
            zmax=high,
            colorscale=[[t, to_hex(colors.get_cmap()(t))] for t in steps],
            opacity=0.7,
            visible=i == 0,
            name=title,
            hovertemplate="row %{y}, column %{x}: %{z:.3g}<extra></extra>",
        )
    layers = list(range(1, len(planes) + 1))
    figure.update_layout(
        width=_SIDE + 120,
        height=_SIDE * photograph.shape[0] // photograph.shape[1] + 150,
        margin={"l": 10, "r": 10, "t": 50, "b": 10},
        plot_bgcolor="white",
        sliders=[_slider(layers)],
        updatemenus=[_menu(list(planes))] if len(planes) > 1 else [],
        title=None if len(planes) > 1 else next(iter(planes)),
    )
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x")
    return figure


def _slider(layers: list[int]) -> dict[str, object]:
    steps = [
        {"label": f"{10 * i} %", "method": "restyle", "args": [{"opacity": i / 10}, layers]}
        for i in range(11)
    ]
    return {"active": 7, "steps": steps, "currentvalue": {"prefix": "map: "}, "pad": {"t": 20}}


def _menu(titles: list[str]) -> dict[str, object]:
    """Show the photograph, and one of the maps."""
    buttons = [
        {
            "label": title,
            "method": "restyle",
            "args": [{"visible": [True, *(other == title for other in titles)]}],
        }
        for title in titles
    ]
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
