"""The command that lists and clears what is kept on disk."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from jaxattr.cli.errors import no_traceback

KINDS = ("downloads", "weights", "programs")
"""Files of published weights, weights converted for Flax, programs that XLA compiled."""


class Entry(NamedTuple):
    """A file, or a folder, in the cache: of which kind, where, and its size in bytes."""

    kind: str
    path: Path
    size: int


@click.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """List or clear what is kept on disk: downloads, converted weights, compiled programs.

    It is in the folder that the environment variable JAXATTR_CACHE names.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_cache)


@cache.command("list")
def list_cache() -> None:
    """List what is kept, and its size."""
    from weights_conversion import cache_directory

    with no_traceback():
        found = list(_entries(KINDS))
    click.echo(cache_directory())
    for entry in found:
        if entry.kind != "programs":
            click.echo(f"  {_mebibytes(entry.size)}  {entry.kind}: {entry.path.name}")
    programs = [entry.size for entry in found if entry.kind == "programs"]
    click.echo(f"  {_mebibytes(sum(programs))}  programs: {len(programs)}")
    click.echo(f"  {_mebibytes(sum(entry.size for entry in found))}  in all")


@cache.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS), metavar="[downloads|weights|programs]")
def clear(kinds: tuple[str, ...]) -> None:
    """Delete what is kept, of all kinds or of some; what is needed again is made again."""
    with no_traceback():
        found = list(_entries(kinds or KINDS))
        for entry in found:
            if entry.path.is_dir():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
    click.echo(f"deleted {len(found)} entries, {_mebibytes(sum(e.size for e in found)).strip()}")


def _entries(kinds: Iterable[str]) -> Iterator[Entry]:
    """Find entries by their names: a cache folder that was named by mistake keeps its files."""
    from jaxattr.models import PUBLISHED
    from weights_conversion import cache_directory

    root = cache_directory()
    names = [p.filename for p in PUBLISHED if p.package is None]
    places = {
        "downloads": (root / "downloads" / f"{n}{end}" for n in names for end in ("", ".part")),
        "weights": (m.parent for m in sorted((root / "converted").glob("*/manifest.json"))),
        "programs": sorted((root / "xla").glob("jit_*-*")),
    }
    for kind in kinds:
        yield from (Entry(kind, path, _size(path)) for path in places[kind] if path.exists())


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:8.1f} MiB"
