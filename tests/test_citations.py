import json
import re

import pytest
from click.testing import CliRunner
from test_public import METRICS

import jaxattr
from jaxattr import catalogue
from jaxattr.citations import entries
from jaxattr.cli.main import main
from jaxattr.rules import composites


def test_every_method_and_metric_has_a_paper_and_no_other_name():
    methods = {*catalogue.METHODS, *catalogue.ATTENDING}
    wanted = methods | {name.removeprefix("metrics.") for name in METRICS}
    assert not wanted - set(entries())
    places = jaxattr, jaxattr.metrics, composites
    others = set(entries()) - wanted - {"jaxattr"}
    assert not {name for name in others if not any(hasattr(place, name) for place in places)}


def test_entries_are_well_formed_and_keys_unique():
    found = {entry for papers in entries().values() for entry in papers}
    keys = [re.fullmatch(r"@\w+\{(\w+),\n(?:  \w+ = \{.*\},\n)+\}", entry)[1] for entry in found]
    assert len(set(keys)) == len(keys) == len(found)
    assert all(entry.count("{") == entry.count("}") for entry in found)


def test_a_paper_comes_once_and_of_a_chain_all():
    text = jaxattr.cite("excitation_backprop", "smoothgrad:excitation_backprop")
    assert re.findall(r"@\w+\{(\w+)", text) == ["zhang2016topdown", "smilkov2017smoothgrad"]
    assert "implemented" not in text
    assert jaxattr.cite().startswith("@software{jaxattr")


def test_an_unknown_name():
    with pytest.raises(ValueError, match="no paper of 'dmpb'; did you mean dmbp"):
        jaxattr.cite("dmpb")


def test_the_version_is_that_of_the_package():
    assert f"version = {{{jaxattr.__version__}}}" in jaxattr.cite()


def test_commands():
    run = CliRunner().invoke
    assert run(main, ["cite", "dmbp"]).output == jaxattr.cite("dmbp") + "\n"
    assert "did you mean" in run(main, ["cite", "dmpb"]).output
    listed = json.loads(run(main, ["methods", "--json"]).output)
    assert [row["name"] for row in listed] == list(catalogue.methods())
    (dmbp,) = (row for row in listed if row["name"] == "dmbp")
    assert dmbp["options"]["steps"] == 200
    assert dmbp["family"] == "learned"
    assert "BibTeX" not in dmbp
