"""The command that draws maps of photographs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import jax
import numpy as np

from jaxattr import catalogue
from jaxattr.catalogue import Method
from jaxattr.cli.errors import no_traceback
from jaxattr.cli.files import output_names, writable_folder, write
from jaxattr.cli.inputs import find_class, open_photograph
from jaxattr.cli.running import keep_programs, run, timed
from jaxattr.types import Array, Key

if TYPE_CHECKING:  # Flax and matplotlib take seconds to import: elsewhere only where they are used
    from PIL.Image import Image

    from jaxattr.models import Pretrained

_DEFAULT = "saliency,integrated_gradients,guided_backprop,grad_cam"
_LISTED = 3  # classes below a photograph


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", default="efficientnet_lite0", show_default=True, help="Its name.")
@click.option("--weights", help="Published weights by name.  [default: the best]")
@click.option("--checkpoint", help="A file of weights of your own, of torch or safetensors.")
@click.option("--method", default=_DEFAULT, show_default=True, help="Names, with commas between.")
@click.option(
    "--target",
    default="top",
    show_default=True,
    help="The class to explain: an index, a name or a part of one, or `top`, the class that the "
    "model finds likeliest in each photograph.",
)
@click.option("--out", default="maps", show_default=True, help="The folder to write to.")
@click.option(
    "--steps", type=click.IntRange(1), help="Points of an integral, or steps of an optimizer."
)
@click.option("--samples", type=click.IntRange(1), help="Noisy copies of the photograph.")
@click.option("--noise", type=click.FloatRange(0), help="Their noise, as a part of its range.")
@click.option("--layer", help="The layer that CAMs draw.  [default: the last]")
@click.option("--seed", default=0, show_default=True, help="Of methods that draw random numbers.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="How many photographs are explained at once, at most.",
)
def explain(
    images: Sequence[str],
    model: str,
    weights: str | None,
    checkpoint: str | None,
    method: str,
    target: str,
    out: str,
    seed: int,
    batch: int,
    **options: Any,
) -> None:
    """Explain what a classifier sees in photographs.

    An IMAGE is a file, or a photograph that scikit-image carries: skimage:chelsea (a cat),
    skimage:coffee, skimage:rocket. For each of them, a figure NAME.png and the maps
    NAME.METHOD.npy, of shape (height, width, channels), are written to the folder of --out;
    evidence for the class and evidence against it stand beside DMBP.
    """
    options = {k: v for k, v in options.items() if v is not None}
    with no_traceback():
        names = output_names(images)
        photographs = [open_photograph(image) for image in images]
        chains = _chains(method, options)
        net, preprocess, classes = _load(model, weights, checkpoint)
        x = np.stack([_input(*p, preprocess) for p in zip(images, photographs, strict=True)])
        wanted = None if target == "top" else find_class(target, classes)
        folder = writable_folder(out)
        keep_programs()
        likely = run(model, lambda net, x: jax.nn.softmax(net(x)), net, x, batch=batch)
        explained = likely.argmax(-1) if wanted is None else np.full(len(x), wanted)
        maps = {}
        for spec, chain in chains.items():
            attribute = _explainer(chain, options, jax.random.key(seed))
            found = run(spec, attribute, net, x, explained, batch=batch)
            maps |= zip(catalogue.panels(spec), found, strict=True)
        _write_maps(folder, names, maps)
        displayed = [np.asarray(preprocess.display(photograph)) for photograph in photographs]
        _write_figures(folder, names, displayed, maps, likely, explained, classes)


def _write_maps(folder: Path, names: Sequence[str], maps: Mapping[str, np.ndarray]) -> None:
    for title, explanations in maps.items():
        for name, a in zip(names, explanations, strict=True):
            file = f"{name}.{title.replace(':', '-')}.npy"
            write(folder / file, lambda stream, a=a: np.save(stream, a))


def _write_figures(
    folder: Path,
    names: Sequence[str],
    photographs: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    likely: np.ndarray,
    explained: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Draw the maps beside each photograph, and print its likeliest classes."""
    from jaxattr import viz

    for i, name in enumerate(names):
        ranks = _ranks(likely[i], explained[i])
        listed = [(classes[k], float(likely[i, k])) for k in ranks]
        figure = viz.figure(
            photographs[i],
            {title: a[i] for title, a in maps.items()},
            classes=listed,
            target=ranks.index(explained[i]),
        )
        write(folder / f"{name}.png", figure.savefig)
        said = ", ".join(f"{c} {100 * p:.1f} %" for c, p in listed)
        click.echo(f"{folder / name}.png: {said}")


def _chains(names: str, options: Mapping[str, Any]) -> dict[str, list[Method]]:
    """Find the methods, and refuse an option that none of them has."""
    chains = {name: catalogue.find(name) for name in filter(None, names.split(","))}
    if not chains:
        raise ValueError("--method names no method")
    for option in options:
        if not any(option in m.options for chain in chains.values() for m in chain):
            known = catalogue.methods().values()
            owners = ", ".join(m.name for m in known if option in m.options)
            raise ValueError(f"--{option} is no option of {', '.join(chains)}; it is for {owners}")
    return chains


def _load(model: str, weights: str | None, checkpoint: str | None) -> "Pretrained":
    with timed(f"loading {model} ... "):
        from jaxattr.models import load

        return load(model, weights=weights, path=checkpoint)


def _input(name: str, photograph: "Image", preprocess: Callable) -> np.ndarray:
    try:
        return preprocess(photograph)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _explainer(chain: Sequence[Method], options: Mapping[str, Any], key: Key) -> Callable:
    """Return `(net, x, target) -> panels`, to be jitted with the weights as an argument."""

    def explain(net: Callable[[Array], Array], x: Array, target: Array) -> list[Array]:
        return catalogue.explain(chain, lambda x: net(x), x, target, key, **options)

    return explain


def _ranks(likely: np.ndarray, explained: int) -> list[int]:
    """Return the likeliest classes, the explained one among them."""
    ranks = np.argsort(-likely, kind="stable")[:_LISTED].tolist()
    return ranks if explained in ranks else [*ranks[:-1], int(explained)]
