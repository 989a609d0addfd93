"""The site has a page for every public name, and every page is in a table of contents."""

import inspect
import re
from pathlib import Path

import pages
import pytest

import jaxattr
from jaxattr import catalogue

DOCS = Path(__file__).resolve().parents[1] / "docs"

WRITTEN = {
    **{f"methods/{name}": pages.method_page(m) for name, m in pages.own_methods().items()},
    **{f"api/{name}": text for name, text in pages.api_pages().items()},
    "methods/index": pages.methods_index(),
    "gallery/index": pages.gallery_page(),
}
EVERYTHING = "\n".join(WRITTEN.values())


@pytest.mark.parametrize("module", [jaxattr, jaxattr.metrics, jaxattr.maps, jaxattr.scores])
def test_every_public_name_is_documented(module):
    own = {n: v for n, v in vars(module).items() if not n.startswith("_") and callable(v)}
    own = {n for n, v in own.items() if getattr(v, "__module__", "").startswith("jaxattr")}
    missing = {
        n for n in own if not re.search(rf"auto\w+:: [\w.]+\.{n}$", EVERYTHING, re.MULTILINE)
    }
    assert own
    assert not missing


def test_every_page_is_in_a_table_of_contents():
    by_hand = {str(p.relative_to(DOCS).with_suffix("")) for p in DOCS.rglob("*.md")}
    made = {p for p in by_hand if p.startswith(("api/", "methods/")) or p == "gallery/index"}
    texts = {p: (DOCS / f"{p}.md").read_text() for p in by_hand - made} | WRITTEN
    listed = set()
    for page, text in texts.items():
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {str((DOCS / page).parent.joinpath(n).relative_to(DOCS)) for n in names}
    assert set(texts) - {"index"} == listed


def test_a_page_of_a_method_says_what_there_is():
    page = pages.method_page(catalogue.METHODS["dmbp"])
    for part in (
        "jaxattr.dmbp\n",
        "jaxattr.dmbp_details\n",
        "200 photographs",
        "ruiz2021",
        "learned",
    ):
        assert part in page


def test_docstrings_become_restructured_text():
    lines = ["Sum |a| * b.", "", "    y = |x| * 2", "", "where `a|b` is", "", "Args:", "    x: a|b"]
    pages.restructure(None, "function", "f", inspect, None, lines)
    literal = ["::", "", "    y = |x| * 2", "", "where `a|b` is"]
    assert lines == [r"Sum \|a\| \* b.", "", *literal, "", "Args:", r"    x: a\|b"]
