import re
import shlex
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest

from jaxattr import catalogue, citations, metrics
from jaxattr.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_example_runs_and_gives_the_shapes_it_states():
    (example,) = blocks("python")
    scope: dict = {}
    done = 0
    for match in re.finditer(r"^(\w+) = .*  # (\(\d.*\))\n", example, re.MULTILINE):
        exec(example[done : match.end()], scope)
        done = match.end()
        assert str(scope[match[1]].shape) == match[2], match[0]
    assert done == len(example)


def test_the_two_commands_stand_first():
    explain, tests = blocks("sh")[:2]
    assert explain.startswith("python3 -m venv .venv")
    assert "jaxattr explain" in explain
    assert "pytest" in tests


def commands() -> list[str]:
    """Return the commands of README, and of the pages of the site."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    shown = re.findall(r"^```sh\n(.*?)^```$", "\n".join(map(Path.read_text, pages)), re.S | re.M)
    return re.findall(r"^(?:\.venv/bin/)?jaxattr (.*?)$", "\n".join(shown), re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_commands_parse_and_name_what_there_is(command: str):
    name, *args = shlex.split(command)
    context = main.commands[name].make_context(name, args)
    for method in context.params.get("method", "").split(","):
        assert not method or catalogue.find(method)


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table_of_methods() -> str:
    """A row for each family."""
    everything = (catalogue.METHODS | catalogue.ATTENDING).values()
    families = {m.facts.family: [] for m in everything}
    for m in everything:
        families[m.facts.family].append(m.name)
    rows = [row((family, quoted(names))) for family, names in families.items()]
    return "\n".join(["| family | methods |", "|---|---|", *rows, ""])


def table_of_metrics() -> str:
    """A row for each file, what its first line says behind what it measures."""
    files: dict[str, list[str]] = {}
    for name, metric in vars(metrics).items():
        if name in citations.entries():
            doc = import_module(metric.__module__).__doc__ or ""
            about = re.sub(r"\s+", " ", doc.partition("\n\n")[0]).rstrip(".")
            files.setdefault(about, []).append(name)
    rows = [row((about, quoted(names))) for about, names in files.items()]
    return "\n".join(["| what is measured | metrics |", "|---|---|", *rows, ""])


TABLES = {
    "| family | methods |": table_of_methods,
    "| what is measured | metrics |": table_of_metrics,
}


def table(head: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(head)}\n(?:\|.*\n)*")


@pytest.mark.parametrize("head", TABLES)
def test_tables_are_made_of_docstrings(head: str):
    (found,) = table(head).findall(README)
    assert found == TABLES[head](), "to write it anew: python tests/test_readme.py"


def test_the_costs_are_those_of_methods_in_the_order_of_the_catalogue():
    page = (ROOT / "docs/speed.md").read_text()
    costs = page.partition("\n## Cost\n")[2].partition("\n## ")[0]
    stated = re.findall(r"^\| `(\w+)`(?:,[^|]*)? \| [\d.]+ \| [\d.]+ \|$", costs, re.MULTILINE)
    assert stated
    assert stated == [name for name in catalogue.METHODS if name in stated]


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


if __name__ == "__main__":
    for head, write in TABLES.items():
        README = table(head).sub(lambda _, write=write: write(), README)
    (ROOT / "README.md").write_text(README)
