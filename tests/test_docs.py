"""The pages that name code: what they name exists, what they show runs, arrows are as drawn."""

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.metadata import EntryPoint
from itertools import pairwise
from pkgutil import resolve_name
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from speed import mostly_slow
from test_architecture import FILES, ROOT, imports, room

import jaxattr
from jaxattr import catalogue
from jaxattr.deprecated import RENAMED
from jaxattr.programs import primitives

PAGES = ("architecture", "extending", "frameworks", "scalars", "CONTRIBUTING", "CHANGELOG")
PAGES += ("how_it_works", "questions", "coming_from")
TEXT = {page: (ROOT / "docs" / f"{page}.md").read_text() for page in PAGES}
FILE_TYPES = ("json", "md", "npz", "py", "toml", "yaml")

every_page = pytest.mark.parametrize("page", PAGES)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT[page], re.DOTALL | re.MULTILINE)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an example registers or an entry point names is forgotten after the test."""
    monkeypatch.setattr(primitives, "_REGISTERED", {})
    catalogue._foreign.cache_clear()
    yield
    catalogue._foreign.cache_clear()


@pytest.mark.parametrize(
    "example", mostly_slow(blocks("frameworks", "python"), blocks("frameworks", "python")[:1])
)
def test_models_of_any_framework(example: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (needed,) = re.findall("(flax|equinox|haiku|keras|transformers)", example)[:1]
    pytest.importorskip(needed)
    exec(example, names := {"__name__": "example"})
    assert names["maps"].shape[:3] == names["x"].shape[:3]
    assert np.abs(names["maps"]).max() > 0


@pytest.mark.slow
def test_any_number_place_and_input():
    names: dict = {"__name__": "example"}
    for example in blocks("scalars", "python"):
        exec(example, names)
        assert np.abs(names.get("maps", 1)).max() > 0
    assert {k: a.shape for k, a in names["found"].items()} == {
        "image": (2, 8, 8, 3),
        "scale": (2, 4),
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", ["how_it_works", "questions", "coming_from"])
def test_what_a_page_shows_runs_from_top_to_bottom(page: str):
    names = {"__name__": "example"}
    for example in blocks(page, "python"):
        exec(example, names)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("example", blocks("extending", "python"))
def test_examples_are_short_and_run(example: str):
    assert len(example.splitlines()) < 30
    exec(example, {"__name__": "example"})


@pytest.mark.usefixtures("installed")
def test_a_method_of_another_package(monkeypatch: pytest.MonkeyPatch):
    """The example's method, found by its entry point, keeps the gradient of half of the units."""
    (source,) = (b for b in blocks("extending", "python") if "@jaxattr.method" in b)
    (project,) = map(tomllib.loads, blocks("extending", "toml"))
    exec(source, vars(module := ModuleType("rectgrad")))
    monkeypatch.setitem(sys.modules, "rectgrad", module)
    names = project["project"]["entry-points"][catalogue.GROUP]
    entries = [EntryPoint(name, value, catalogue.GROUP) for name, value in names.items()]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: entries)
    noisy, method = catalogue.find("smoothgrad:rectgrad")
    assert (noisy.name, method.name) == ("smoothgrad", "rectgrad")
    weight = jnp.array([[1.0, 2.0], [3.0, 1.0], [0.5, 0.5]])
    f = lambda x: jax.nn.relu(x).sum((1, 2)) @ weight
    x, target = jnp.linspace(-1.0, 2.0, 24).reshape(2, 2, 2, 3), jnp.array([0, 1])
    gradient = jaxattr.saliency(f)(x, target)
    importance = np.asarray(x * gradient)
    kept = importance > np.quantile(importance, 0.5, (1, 2, 3), keepdims=True)
    assert kept.any()
    np.testing.assert_allclose(method.function(f, quantile=0.5)(x, target), gradient * kept)


def table(heading: str) -> list[tuple[str, ...]]:
    """Return the cells of the tables of a section of the changes, without those of their heads."""
    _, _, after = TEXT["CHANGELOG"].partition(f"\n### {heading}\n")
    section, _, _ = after.partition("\n#")
    lines = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return [tuple(line.split(" | ")) for line in lines]


def current(page: str) -> str:
    """Return a page without the first cells of tables of two columns, which hold old names."""
    return re.sub(r"^\|[^|\n]*\|(?=[^|\n]*\|$)", "|", TEXT[page], flags=re.MULTILINE)


def names(page: str) -> set[str]:
    """Return the dotted names on a page: the package's, and all that stand alone in backticks."""
    text = current(page)
    found = re.findall(r"(?<![\w/.])(?:jaxattr|weights_conversion)(?:\.[A-Za-z_]\w*)+", text)
    found += re.findall(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)`", text)
    return {name for name in found if not name.endswith(FILE_TYPES)}


def exists(name: str) -> bool:
    """Whether there is a dotted name; it may begin with the last part of a module of ours."""
    first, _, rest = name.partition(".")
    for module in [m for m in FILES if m.rpartition(".")[2] == first] or [first]:
        with suppress(ImportError, AttributeError):
            resolve_name(f"{module}.{rest}")
            return True
    return False


@every_page
def test_names_exist(page: str):
    assert not {name for name in names(page) if not exists(name)}


@every_page
def test_files_exist(page: str):
    text = current(page)
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]
    top = "|".join(re.escape(p.name) for p in ROOT.iterdir() if p.is_dir() and p.name != ".venv")
    paths = re.findall(rf"(?<![\w/.])(?:{top})/[\w/]*(?:\.\w+)?(?!\*)\b", text)
    assert not [p for p in paths if "NAME" not in p and not (ROOT / p).exists()]


def test_names_that_do_not_exist_are_found():
    for name in ("jaxattr.lpr_fits", "interpret.reads", "jaxattr.rules.gate", "transform.Traced.x"):
        assert not exists(name)


def test_the_drawing_has_every_room():
    (drawn,) = blocks("architecture", "text")
    inside, _, _ = drawn.partition("weights_conversion/")
    rooms = set(re.findall(r"^  (\w+)(?:/|\.py) ", inside, re.MULTILINE))
    package = {name for name in FILES if name.startswith("jaxattr.")}
    assert rooms == {"__init__"} | {room(name) for name in package} - {"__main__"}


def test_arrows_are_as_drawn():
    """Every import between rooms follows the arrows, and every arrow is an import."""
    (graph,) = blocks("architecture", "mermaid")
    chains = [line.split(" --> ") for line in map(str.strip, graph.splitlines()[1:])]
    arrows = {pair for chain in chains for pair in pairwise(chain)}
    reached = set(arrows)
    while more := {(a, d) for a, b in reached for c, d in arrows if b == c} - reached:
        reached |= more
    drawn = {name for pair in arrows for name in pair}
    found = {(room(a), room(b)) for a in FILES for b in imports(a) if room(a) != room(b)}
    assert arrows <= found
    assert {(a, b) for a, b in found if {a, b} <= drawn} <= reached


def test_every_renamed_function_is_listed():
    assert {(f"`{old}`", f"`{new}`") for old, new in RENAMED.items()} == set(table("Renamed"))


def test_renamed_options_are_taken_by_their_new_names():
    for functions, old, new in table("Options"):
        for function in re.findall(r"`(.+?)`", functions):
            module, _, name = function.rpartition(".")
            options = inspect.signature(getattr(import_module(module), name)).parameters
            before, after = (cell.strip("`").partition("=")[0] for cell in (old, new))
            assert after in options
            assert before == after or before not in options


def test_modules_that_have_moved_are_gone():
    """The command line's file has become a room."""
    moved = {name for old, _ in table("Moved") for name in re.findall(r"`(.+?)`", old)}
    assert len(moved) > 80
    assert moved & set(FILES) == {"jaxattr.cli"}
