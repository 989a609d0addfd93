"""Methods by name: the package's own, and those that other packages add by an entry point."""

import inspect
import json
import re
import sys
import typing
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import NamedTuple

import jax.numpy as jnp
import pytest
from click.testing import CliRunner

import jaxattr
from jaxattr import catalogue
from jaxattr.cli.main import main


def test_every_method_of_the_package_is_in_the_catalogue():
    public = filter(inspect.isfunction, vars(jaxattr).values())
    methods = {f for f in public if _returns(f) is jaxattr.Attribution}
    assert len(methods) > 9
    assert {m.function for m in (catalogue.METHODS | catalogue.ATTENDING).values()} == methods


def _returns(function: Callable) -> object:
    return typing.get_type_hints(function).get("return")


def test_the_catalogue_says_something_of_each_method():
    for m in catalogue.METHODS.values():
        assert m.summary.endswith(".")
        year = r" (19|20)\d\d(, section \d)?\.$|, under review at ICLR\.$"
        assert re.search(year, m.reference), m.name


def test_facts_leave_a_function_as_it_is():
    def brightness(f):
        return explain

    explain = lambda x, target, *, key=None: x
    method = jaxattr.method(cost="none", family="controls", spatial=True)
    own, brightness = brightness, method(brightness)
    assert brightness.__wrapped__ is own
    assert brightness(None).__wrapped__ is explain
    assert brightness.facts == jaxattr.Facts("none", "controls", spatial=True)
    assert "brightness" not in catalogue.methods()


@jaxattr.method(cost="none", family="controls")
def brightness(f: jaxattr.Fun, *, steps: int = 7) -> jaxattr.Attribution:
    """Attribute to each pixel its value."""
    return lambda x, target, *, key=None: x


class Span(NamedTuple):
    low: int
    high: int


NAN, KEYED, SPAN = float("nan"), {(1, 2): [{3}]}, Span(0, 1)


@jaxattr.method(cost="none", family="controls")
def odd(f, *, a=NAN, b=KEYED, c=brightness, d=SPAN):
    return lambda x, target, *, key=None: x


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """Install a package whose entry points name methods."""
    module = ModuleType("their_package")
    module.brightness, module.odd, module.plain = brightness, odd, lambda f: None
    monkeypatch.setitem(sys.modules, "their_package", module)

    def install(**names: str) -> None:
        entries = [EntryPoint(n, f"their_package:{v}", catalogue.GROUP) for n, v in names.items()]
        monkeypatch.setattr(catalogue, "entry_points", lambda group: entries)
        catalogue._foreign.cache_clear()

    yield install
    catalogue._foreign.cache_clear()


def test_options_of_any_kind_are_listed_as_json(installed: Callable):
    installed(theirs="odd")
    listed = CliRunner().invoke(main, ["methods", "--json"], catch_exceptions=False).output
    options = json.loads(listed, parse_constant=pytest.fail)[-1]["options"]
    assert options["a"] == "nan"
    assert options["b"] == {"(1, 2)": ["{3}"]}
    assert options["c"] == "brightness"
    assert options["d"] == {"low": 0, "high": 1}


def test_a_method_of_another_package(installed: Callable):
    installed(their_brightness="brightness")
    assert catalogue.methods()["their_brightness"].function is brightness
    assert "their_brightness" not in catalogue.METHODS
    (method,) = catalogue.find("their_brightness")
    x = jnp.ones((1, 2, 2, 1))
    assert catalogue.build([method], lambda x: x)(x, jnp.array([0])) is x
    chain = catalogue.find("smoothgrad:their_brightness")
    assert [m.name for m in chain] == ["smoothgrad", "their_brightness"]
    listed = " ".join(CliRunner().invoke(main, ["methods"]).output.split())
    said = "their_brightness Attribute to each pixel its value. Cost: none. Options: --steps 7."
    assert said in listed


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"broken": "missing"}, r"'broken' of another package \(their_package:missing\)"),
        ({"plain": "plain"}, "it states no facts; decorate it with jaxattr.method"),
        ({"saliency": "brightness"}, "jaxattr has a method of this name"),
    ],
)
def test_what_cannot_be_loaded_is_one_warning(installed: Callable, names: dict, message: str):
    installed(**names, their_brightness="brightness")
    assert catalogue.find("saliency")  # nothing of theirs is loaded for a method of ours
    with pytest.warns(UserWarning, match=message) as caught:
        found = catalogue.methods()
    assert len(caught) == 1
    assert list(found) == [*catalogue.METHODS, *catalogue.ATTENDING, "their_brightness"]
    assert found["saliency"].function is jaxattr.saliency
