"""Explain a batch of photographs, and write what is found."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from jaxattr import catalogue, scores
from jaxattr.catalogue import Method
from jaxattr.cli.files import FIGURE, Origin, map_file, origin, save_map, text_of, write
from jaxattr.cli.photographs import Work
from jaxattr.types import Array, Key

_LISTED = 3  # classes below a photograph


class Run(NamedTuple):
    """What is the same for all photographs.

    Attributes:
        net: the model.
        classes: their names.
        classify: `(net, x)` to probabilities `(B, K)`.
        methods: from names of methods to `(net, x, target) -> panels`.
        target: the class to explain, None for the likeliest.
        size: of a batch.
        folder: to write to.
        shared_scale: whether the maps of a figure have one color scale.
    """

    net: Any
    classes: Sequence[str]
    classify: Callable[[Any, np.ndarray], np.ndarray]
    methods: Mapping[str, Callable[..., list[np.ndarray]]]
    target: int | None
    size: int
    folder: Path
    shared_scale: bool


def classifier(multi_label: bool) -> Callable[[Any, Array], Array]:
    """Return `(net, x) -> (B, K)`, what a model finds likely.

    Args:
        multi_label: whether classes do not exclude each other; a model may say so itself.
    """

    def classify(net: Callable[[Array], Array], x: Array) -> Array:
        several = multi_label or getattr(net, "multi_label", False)
        return scores.probabilities(net(x), multi_label=several)

    return classify


def panels(
    chain: Sequence[Method], options: Mapping[str, Any], key: Key
) -> Callable[..., list[Array]]:
    """Return `(net, x, target) -> panels`, to be jitted with the weights as an argument."""

    def explain(net: Callable[[Array], Array], x: Array, target: Array) -> list[Array]:
        return catalogue.explain(chain, lambda x: net(x), x, target, key, **options)

    return explain


def explain_batch(
    run: Run, works: Sequence[Work], skip: Callable[[str], None], *, first: bool
) -> None:
    """Explain photographs, write each method's maps when they are there, then the figures.

    What is not finite is not written, and `skip` is called with a sentence on it.

    Raises:
        ValueError: if no photograph of the first batch has finite logits.
    """
    likely = run.classify(run.net, _padded([w.x for w in works], run.size))[: len(works)]
    finite = np.isfinite(likely).all(-1)
    if first and not finite.any():
        raise ValueError(
            "the model's logits are not finite: its weights, or how it uses them, give "
            f"{likely[0, 0]}; no map can be drawn"
        )
    for i in np.flatnonzero(~finite).tolist():
        skip(f"{works[i].photograph.name}: the model's logits are not finite")
    works, likely = [works[i] for i in np.flatnonzero(finite).tolist()], likely[finite]
    if not works:
        return
    explained = likely.argmax(-1) if run.target is None else np.full(len(works), run.target)
    x, target = _padded([w.x for w in works], run.size), _padded(list(explained), run.size)
    drawn: list[dict[str, np.ndarray]] = [{} for _ in works]
    for spec, method in run.methods.items():
        for title, maps in zip(catalogue.panels(spec), method(run.net, x, target), strict=True):
            for work, found, a in zip(works, drawn, maps, strict=False):
                if np.isfinite(a).all():
                    found[title] = a
                    file = run.folder / map_file(work.name, title)
                    write(file, save_map(a, {**work.origin, "map": title}))
                else:
                    skip(f"{work.photograph.name}: the map of {title} is not finite")
    for work, found, p, k in zip(works, drawn, likely, explained, strict=True):
        _draw(run, work, found, p, int(k))


def _draw(
    run: Run, work: Work, maps: Mapping[str, np.ndarray], likely: np.ndarray, explained: int
) -> None:
    """Draw the maps of a photograph beside it, and print its likeliest classes."""
    from jaxattr import viz  # matplotlib takes a second to import

    ranks = _ranks(likely, explained)
    listed = [(run.classes[k], float(likely[k])) for k in ranks]
    figure = viz.figure(
        work.displayed,
        maps,
        classes=listed,
        target=ranks.index(explained),
        shared_scale=run.shared_scale,
    )
    text = text_of({**work.origin, "maps": list(maps)})
    file = run.folder / f"{work.name}{FIGURE}"
    write(file, lambda stream: figure.savefig(stream, format="png", metadata=text))
    said = ", ".join(f"{c} {100 * p:.1f} %" for c, p in listed)
    click.echo(f"{click.format_filename(file)}: {said}")


def is_done(folder: Path, name: str, titles: Sequence[str], made: Origin) -> bool:
    """Whether the figure and all maps of a name are there, and of an origin."""
    files = {name + FIGURE: {**made, "maps": list(titles)}}
    files |= {map_file(name, title): {**made, "map": title} for title in titles}
    return all(origin(folder / file) == wanted for file, wanted in files.items())


def _padded(arrays: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Stack arrays to a batch of always the same size, the first repeated."""
    batch = np.stack(arrays)
    return np.concatenate([batch, batch[:1].repeat(size - len(batch), 0)])


def _ranks(likely: np.ndarray, explained: int) -> list[int]:
    """Return the likeliest classes, the explained one among them."""
    ranks = np.argsort(-likely, kind="stable")[:_LISTED].tolist()
    return ranks if explained in ranks else [*ranks[:-1], int(explained)]
