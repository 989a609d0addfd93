"""What holds of every public function: its options, its docstring, its siblings, its old names."""

import ast
import inspect
import re
import textwrap
import typing
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr
from jaxattr import catalogue, metrics
from jaxattr.deprecated import RENAMED
from jaxattr.facts import facts_of

PACKAGE = Path(jaxattr.__file__).parent


def functions(module: object) -> dict[str, Callable]:
    found = {n: v for n, v in vars(module).items() if inspect.isfunction(v)}
    return {n: v for n, v in found.items() if not n.startswith("_")}


PUBLIC = functions(jaxattr) | {f"metrics.{n}": v for n, v in functions(metrics).items()}
DETAILS = {name: f for name, f in PUBLIC.items() if name.endswith("_details")}
METHODS = {name: f for name, f in PUBLIC.items() if facts_of(f)}
MEASURES = ("Score", "Curve", "Segmentation", "Perturbation", "RandomMetric", "Sensitivity")
METRICS = {
    f"metrics.{name}": f
    for name, f in functions(metrics).items()
    if re.search(rf"\b({'|'.join(MEASURES)})\b", str(inspect.signature(f).return_annotation))
}

every_function = pytest.mark.parametrize("name", PUBLIC)


def parameters(f: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(f).parameters)


def options(f: Callable) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in parameters(f).items() if p.kind is p.KEYWORD_ONLY}


def sections(f: Callable) -> dict[str, str]:
    """Part a docstring by its headings; the summary and the maths are the first section."""
    parts = re.split(r"^(\w+):\n", inspect.getdoc(f) or "", flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@pytest.mark.parametrize("room", ["data", "models", "runner", "viz"])
def test_rooms_are_there_without_an_import_of_their_own(room: str):
    assert getattr(jaxattr, room).__name__ == f"jaxattr.{room}"


def test_there_are_functions_of_every_kind():
    assert len(METHODS) == len(catalogue.METHODS | catalogue.ATTENDING) > 30
    assert len(DETAILS) > 12
    assert len(METRICS) > 12


@every_function
def test_options_are_keywords(name):
    for parameter in parameters(PUBLIC[name]).values():
        assert parameter.kind is parameter.KEYWORD_ONLY or parameter.default is parameter.empty


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_its_function_and_options(name):
    first, *others = parameters(METHODS[name])
    assert first == ("attribute" if facts_of(METHODS[name]).wraps else "f")
    assert set(others) == set(options(METHODS[name]))


def types_of(hint: object) -> frozenset:
    """Return the members of a union but None, or a type alone."""
    is_union = typing.get_origin(hint) in (typing.Union, UnionType)
    return frozenset(typing.get_args(hint) if is_union else [hint]) - {type(None)}


def test_an_option_has_one_type_whatever_takes_it():
    """Where one function takes more than another, it takes all that the other does."""
    found = defaultdict(set)
    for f in PUBLIC.values():
        hints = typing.get_type_hints(inspect.unwrap(f))
        for name, option in options(f).items():
            found[name].add(types_of(hints.get(name, option.annotation)))
    for name, types in found.items():
        widest = max(types, key=len)
        assert all(t <= widest for t in types), name


def statements(f: Callable) -> int:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(f)))).body
    return len(definition.body) - 1  # without the docstring


def args_of(name: str) -> str:
    """Return what a docstring says of arguments, with those that it leaves to another function."""
    said = sections(PUBLIC[name]).get("Args", "")
    others = set(re.findall(r"\*\*options: as for `(\w+)`", said))
    if name in DETAILS:
        others.add(name.removesuffix("_details"))
    return said + "".join(sections(PUBLIC[other])["Args"] for other in others)


@every_function
def test_docstrings(name):
    f, said = PUBLIC[name], sections(PUBLIC[name])
    assert re.match(r".*[.:](\n\n|\Z)", said[""]), "the summary is one line"
    explains = name in METHODS or name in METRICS
    if statements(f) <= 3 and not options(f) and not explains and name not in DETAILS:
        return  # one expression of arrays, which the summary says
    for parameter in parameters(f):
        assert re.search(rf"^ +{parameter}: ", args_of(name), re.MULTILINE), parameter
    returns_none = inspect.signature(f).return_annotation in (None, "None")
    assert "Returns" in said or returns_none
    if explains:
        assert "Reference" in said
        needs_more = "ModuleNotFoundError" in said.get("Raises", "")  # an optional package
        assert ">>>" in inspect.getdoc(f) or needs_more
    if name in DETAILS:
        assert f"`{name.removesuffix('_details')}`" in said[""]


@pytest.mark.parametrize("name", DETAILS)
def test_a_plain_method_and_its_details(name):
    """The same options; the first field of what the details return is the attribution."""
    plain, details = PUBLIC[name.removesuffix("_details")], DETAILS[name]
    assert facts_of(plain).details is details
    assert {n: p.default for n, p in options(plain).items()} == {
        n: p.default for n, p in options(details).items()
    }
    (returned,) = typing.get_args(typing.get_type_hints(details)["return"])
    assert returned._fields[0] == "attribution"
    assert set(facts_of(plain).parts) <= set(returned._fields)


def test_methods_that_cut_at_a_layer_take_its_name():
    ways = {"split", "at_layer", "at_image_or_layer"}
    cutting = {n for n, f in METHODS.items() if ways & vars(inspect.getmodule(f)).keys()}
    cams = {n for n, f in METHODS.items() if facts_of(f).family == "class activation maps"}
    assert len(cutting) > 4
    assert all("layer" in options(METHODS[name]) for name in cutting | cams)


def test_the_loops_of_methods_and_metrics_report_their_progress():
    """Whatever takes a number of steps, samples or things at once tells how far it has come."""
    for name in METHODS.keys() | METRICS.keys():
        taken = options(PUBLIC[name])
        assert "progress" in taken or not {"steps", "samples", "chunk"} & taken.keys(), name
        assert "chunk" in taken or "samples" not in taken, name


@pytest.mark.parametrize("old", RENAMED)
def test_old_names_still_work(old):
    module, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} is now {RENAMED[old]}"):
        found = getattr(resolve_name(module), name)
    assert found is resolve_name(RENAMED[old])
    assert name not in vars(resolve_name(module))
    assert not hasattr(resolve_name(module), "no_name")


def test_old_options_still_work():
    x, target = jnp.ones((1, 8, 8, 3)), jnp.array([0])
    f = lambda x: jax.nn.relu(x.mean((1, 2))) @ jnp.eye(3)
    for name in ("insertion", "deletion", "complementary_insertion", "morf", "lerf"):
        measure, others = getattr(metrics, name), target[:, None]
        with pytest.warns(DeprecationWarning, match=f"output= of {name} is now score="):
            found = measure(f, output=metrics.logit)
        classes = others if name == "complementary_insertion" else target
        found, expected = jax.jit(found), jax.jit(measure(f, score=metrics.logit))
        np.testing.assert_array_equal(found(x, classes, x).curve, expected(x, classes, x).curve)
    with pytest.warns(DeprecationWarning, match="fill= of roar is now baseline="):
        found = metrics.roar(x, x, fraction=0.5, fill=jnp.arange(3.0))
    np.testing.assert_array_equal(found, metrics.roar(x, x, fraction=0.5, baseline=jnp.arange(3.0)))
    for old, new in ((True, 0.0), (False, None)):
        with pytest.warns(DeprecationWarning, match=f"baseline={old} of lpr is now baseline={new}"):
            found = jaxattr.lpr(f, steps=2, baseline=old)
        found, expected = jax.jit(found), jax.jit(jaxattr.lpr(f, steps=2, baseline=new))
        np.testing.assert_array_equal(found(x, target), expected(x, target))


DOCSTRINGS = [
    (file, ast.get_docstring(node))
    for file in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
]


def test_dotted_names_in_docstrings_lead_somewhere():
    found = {n for _, doc in DOCSTRINGS for n in re.findall(r"\bjaxattr(?:\.[A-Za-z_]\w*)+", doc)}
    assert len(found) > 20
    missing = [name for name in found if not _resolves(name)]
    assert not missing


def _resolves(name: str) -> bool:
    try:
        resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True
