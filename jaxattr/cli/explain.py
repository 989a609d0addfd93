"""The command that draws maps of photographs."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import jax

import jaxattr
from jaxattr import catalogue
from jaxattr.catalogue import Method
from jaxattr.cli.errors import Incomplete, no_traceback
from jaxattr.cli.explaining import Run, classifier, explain_batch, is_done, panels
from jaxattr.cli.files import (
    FIGURE,
    Origin,
    check_replaceable,
    map_file,
    output_names,
    writable_folder,
)
from jaxattr.cli.inputs import SEEDS, Photograph, find_class, find_photographs, read_classes
from jaxattr.cli.photographs import check_color, works
from jaxattr.cli.running import keep_programs, program, timed

if TYPE_CHECKING:  # Flax takes seconds to import: elsewhere only where it is used
    from jaxattr.models import Pretrained

_DEFAULT = "saliency,integrated_gradients,guided_backprop,grad_cam"
_MANY = 1_000_000
_NAMED = 20  # photographs that went wrong, at the end; all are named when they do


def _finite(_: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not finite", param=option)
    return value


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", default="efficientnet_lite0", show_default=True, help="Its name.")
@click.option("--weights", help="Published weights by name.  [default: the best]")
@click.option("--checkpoint", help="Weights of your own: torch, safetensors, Orbax.")
@click.option("--key", help="Where its state dict is, as teacher.  [default: the usual places]")
@click.option("--no-ema", is_flag=True, help="Its last weights, not their average over training.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="How its keys begin, and become.")
@click.option("--classes", help="A file of the names of its classes, one in a line.")
@click.option("--method", default=_DEFAULT, show_default=True, help="Names, with commas between.")
@click.option(
    "--target",
    default="top",
    show_default=True,
    help="The class to explain: an index, a name or a part of one, or `top`, the class that the "
    "model finds likeliest in each photograph.",
)
@click.option(
    "--multi-label",
    is_flag=True,
    help="Classes do not exclude each other: probabilities by sigmoid, as for a single output.",
)
@click.option("--out", default="maps", show_default=True, help="The folder to write to.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Explain again what is done, and write over files of another origin.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, _MANY),
    help="Points of an integral, or steps of an optimizer.",
)
@click.option("--samples", type=click.IntRange(1, _MANY), help="Noisy copies of the photograph.")
@click.option(
    "--noise",
    type=click.FloatRange(0),
    callback=_finite,
    help="Their noise, as a part of its range.",
)
@click.option("--layer", help="The layer that CAMs draw.  [default: the last]")
@click.option(
    "--seed",
    type=SEEDS,
    default=0,
    show_default=True,
    help="Of methods that draw random numbers.",
)
@click.option(
    "--background",
    help="The color behind what is transparent, `white` or `#8a2be2`.  [default: none]",
)
@click.option("--shared-scale", is_flag=True, help="One color scale for all maps of a figure.")
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
    key: str | None,
    no_ema: bool,
    rename: tuple[str, ...],
    classes: str | None,
    method: str,
    target: str,
    multi_label: bool,
    out: str,
    overwrite: bool,
    seed: int,
    background: str | None,
    shared_scale: bool,
    batch: int,
    **options: Any,
) -> None:
    """Explain what a classifier sees in photographs.

    An IMAGE is a file, a folder, a pattern ('cats/*.jpg'), or a photograph that scikit-image
    carries: skimage:chelsea (a cat), skimage:coffee, skimage:rocket. For each photograph, a figure
    NAME.figure.png and the maps NAME.METHOD.npy, of shape (height, width, channels), are written
    to the folder of --out as they come; evidence for the class and evidence against it stand
    beside DMBP.

    The same command goes on where it was stopped. A photograph that cannot be read is named and
    left out, and the command ends with exit code 1. Nothing is written over a file that was not
    written by this command.
    """
    options = {k: v for k, v in options.items() if v is not None}
    with no_traceback():
        chains = _chains(method, options)
        titles = [title for spec in chains for title in catalogue.panels(spec)]
        check_color(background)
        photographs = find_photographs(images)
        names = _names(photographs, titles, out, checkpoint, overwrite=overwrite)
        given = None if classes is None else read_classes(classes)
        net, preprocess, labels = _load(
            model, weights, checkpoint, given, rename, key=key, ema=not no_ema
        )
        wanted = None if target.strip() == "top" else find_class(target, labels)
        folder = writable_folder(out)
        keep_programs()
        drawn = jax.random.key(seed)
        run = Run(
            net=net,
            classes=labels,
            classify=program(model, classifier(multi_label)),
            methods={s: program(s, panels(chain, options, drawn)) for s, chain in chains.items()},
            target=wanted,
            size=min(batch, len(photographs)),
            folder=folder,
            shared_scale=shared_scale,
        )
        settings = options | {
            "by": f"jaxattr {jaxattr.__version__}",
            "model": model,
            "weights": weights,
            "checkpoint": checkpoint and _digest(checkpoint),
            "state": [key, no_ema, sorted(rename)],
            "classes": classes and _digest(classes),
            "target": "top" if wanted is None else wanted,
            "multi_label": multi_label,
            "seed": seed,
            "background": background,
            "shared_scale": shared_scale,
        }
        failed: list[str] = []
        before: list[str] = []

        def skip(what: str) -> None:
            click.echo(f"Left out: {what}", err=True)
            failed.append(what)

        def done_before(name: str, made: Origin) -> bool:
            if overwrite or not is_done(folder, name, titles, made):
                return False
            before.append(name)
            return True

        todo = works(
            zip(names, photographs, strict=True),
            preprocess,
            settings,
            background=background,
            skip=skip,
            is_done=done_before,
        )
        first = True
        for _, alike in groupby(todo, key=lambda work: work.x.shape):
            while some := list(islice(alike, run.size)):
                explain_batch(run, some, skip, first=first)
                first = False
    count = len(photographs)
    if before:
        click.echo(f"{len(before)} of {count} photographs were done before", err=True)
    if failed:
        more = f"\n  and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        listed = "".join(f"\n  {what}" for what in failed[:_NAMED]) + more
        raise Incomplete(f"of {count} photographs, these went wrong:{listed}")


def _chains(names: str, options: Mapping[str, Any]) -> dict[str, list[Method]]:
    """Find the methods, and refuse an option that none of them has."""
    specs = (":".join(map(str.strip, name.split(":"))) for name in names.split(","))
    chains = {spec: catalogue.find(spec) for spec in filter(None, specs)}
    if not chains:
        raise ValueError("--method names no method")
    for option in options:
        if not any(option in m.options for chain in chains.values() for m in chain):
            known = catalogue.methods().values()
            owners = ", ".join(m.name for m in known if option in m.options)
            raise ValueError(f"--{option} is no option of {', '.join(chains)}; it is for {owners}")
    return chains


def _names(
    photographs: Sequence[Photograph],
    titles: Sequence[str],
    out: str,
    checkpoint: str | None,
    *,
    overwrite: bool,
) -> list[str]:
    """Return the names of what will be written, and refuse to write over what is not ours."""
    if not out.strip():
        raise ValueError("--out names no folder")
    names = output_names([p.path for p in photographs], Path(out))
    read = [p.path for p in photographs] + ([Path(checkpoint)] if checkpoint else [])
    inputs = frozenset(path.resolve() for path in read)
    for name in names:
        for file in (f"{name}{FIGURE}", *(map_file(name, title) for title in titles)):
            check_replaceable(Path(out) / file, inputs, overwrite=overwrite)
    return names


def _load(
    model: str,
    weights: str | None,
    checkpoint: str | None,
    classes: Sequence[str] | None,
    rename: Sequence[str],
    **file: Any,
) -> "Pretrained":
    with timed(f"loading {model} ... "):
        from jaxattr.models import load
        from weights_conversion import pairs

        file["rename"] = pairs(rename) or None
        return load(model, weights=weights, path=checkpoint, classes=classes, **file)


def _digest(file: str) -> str:
    from weights_conversion.folders import sha256_of
    from weights_conversion.shards import files_of

    return " ".join(sha256_of(part) for part in files_of(Path(file)))
