import re
import shlex
from pathlib import Path

import pytest

from jaxattr import catalogue
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
    return re.findall(r"\.venv/bin/jaxattr (.*?)$", "\n".join(blocks("sh")), re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_commands_parse_and_name_what_there_is(command: str):
    name, *args = shlex.split(command)
    context = main.commands[name].make_context(name, args)
    for method in context.params.get("method", "").split(","):
        assert not method or catalogue.find(method)


def table_of_methods() -> str:
    rows = [
        f"| `{m.name}` | {m.summary} | {m.facts.cost} | {m.reference} |"
        for m in catalogue.METHODS.values()
    ]
    return "\n".join(["| | | cost in passes | |", "|---|---|---|---|", *rows, ""])


TABLE = re.compile(r"\| \| \| cost in passes \| \|\n(?:\|.*\n)*")


def test_the_table_of_methods_is_the_catalogue():
    (table,) = TABLE.findall(README)
    assert table == table_of_methods(), "to write it anew: python tests/test_readme.py"


def test_the_costs_are_those_of_methods_in_the_order_of_the_table():
    costs = README.partition("\n## Cost\n")[2].partition("\n## ")[0]
    stated = re.findall(r"^\| `(\w+)`(?:,[^|]*)? \| [\d.]+ \| [\d.]+ \|$", costs, re.MULTILINE)
    assert stated
    assert stated == [name for name in catalogue.METHODS if name in stated]


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


if __name__ == "__main__":
    (ROOT / "README.md").write_text(TABLE.sub(lambda _: table_of_methods(), README))
