"""Metrics of stored maps, tables, and the page that shows them."""

import csv
import errno
import inspect
import json
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxattr import metrics

pytest.importorskip("grain")
from jaxattr.data import Source, class_mask, record
from jaxattr.models import Preprocess
from jaxattr.runner import Job, evaluate, explain, measuring, report
from jaxattr.runner.store import open_store
from jaxattr.runner.tables import Row, comparisons, means

W = np.random.default_rng(0).normal(size=(32 * 32 * 3, 3)).astype(np.float32)
PREPARE = Preprocess(40, 32)
JOB = Job(
    "made up", "dense", {"saliency": {}, "input_x_gradient": {}}, target="all-labels", batch=4
)


def model(x):
    return jnp.tanh(x.reshape(len(x), -1) @ W / 50)


def read(i):
    if i == 3:
        raise ValueError("number 3 cannot be read")
    rng = np.random.default_rng(i)
    size = (50 + 9 * i, 64)
    boxes = [[5, 10, 40, 50]] if i == 1 else [[5, 10, 40, 50], [20, 5, 45, 60]]
    labels = [i % 3] if i == 1 else [0, 2]
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    return record(f"im{i}", pixels, boxes=boxes, box_labels=labels)


SOURCE = Source("made up", ("a", "b", "c"), range(5), read)
MEASURES = {
    "insertion": {"step": 256},
    "idsds": {"cells": 2},
    "pointing_game": {},
    "boundary_dependency": {"border": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    explain(JOB, SOURCE, model, PREPARE, out, progress=False)
    rows = evaluate(out, SOURCE, model, PREPARE, MEASURES, progress=False)
    return out, rows


def test_a_binary_classifier_has_logistic_scores(tmp_path):
    def binary(x):
        return model(x)[:, :1]

    source = Source("made up", ("a",), range(2), read)
    job = JOB._replace(methods={"saliency": {}}, target="top")
    explain(job, source, binary, PREPARE, tmp_path, progress=False)
    likely = open_store(tmp_path).open_array("probability").read().result()
    x = np.stack([PREPARE(Image.fromarray(read(i).image)) for i in range(2)])
    expected = 1 / (1 + np.exp(-binary(x)[:, 0]))
    np.testing.assert_allclose(likely, expected, rtol=1e-5)
    rows = evaluate(tmp_path, source, binary, PREPARE, {"insertion": {"step": 512}}, progress=False)
    assert all(0 < row.score < 0.99 for row in rows)


def test_scores_are_those_of_the_metrics(run):
    out, rows = run
    found = {(r.example, r.method, r.metric): r.score for r in rows}
    assert len(rows) == len(found) == 8 * 2 * len(MEASURES)
    store = open_store(out)
    target = store.open_array("target").read().result()
    at = json.loads((out / "examples.json").read_text())
    assert [i for i, _ in at] == [0, 0, 1, 2, 2, 3, 4, 4]
    for method in JOB.methods:
        maps = store.open_array(f"maps/{method}").read().result()
        assert np.isnan(maps[5]).all()
        assert all(found[5, method, m] is None for m in MEASURES)
        for i in (1, 2, 7):
            r = read(at[i][0])
            x, t, a = PREPARE(Image.fromarray(r.image))[None], target[i : i + 1], maps[i : i + 1]
            expected = metrics.insertion(model, step=256)(x, t, a).score[0]
            np.testing.assert_allclose(found[i, method, "insertion"], expected, rtol=1e-4)
            r0, c0, r1, c1 = PREPARE.geometry(r.image.shape[:2]).visible
            mask = class_mask(r, int(target[i]))[r0:r1, c0:c1][None]
            assert found[i, method, "pointing_game"] == metrics.pointing_game(a, mask).score[0]
            border = metrics.boundary_dependency(a, border=2).score[0]
            np.testing.assert_allclose(found[i, method, "boundary_dependency"], border, rtol=1e-5)


def test_tables_are_written_and_nothing_is_measured_twice(run, monkeypatch):
    out, rows = run
    with (out / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    assert lines[0]["image"] == "im0"
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(out / "scores.parquet").num_rows == len(rows)
    monkeypatch.setattr(
        "jaxattr.runner.evaluating.batches", lambda *_, **given: iter(given["indices"])
    )
    assert evaluate(out, SOURCE, model, PREPARE, MEASURES, progress=False) == rows


def test_means_and_pairs():
    scores = {"a": [1, 0, None, 1], "b": [0, 0, 1, 0.5]}
    rows = [Row(i, "", i % 2, m, "x", s) for m, v in scores.items() for i, s in enumerate(v)]
    first, second = means(rows)
    assert (first.mean, first.number, first.class_mean) == (pytest.approx(2 / 3), 3, 0.75)
    assert first.standard_error == pytest.approx(np.std([1, 0, 1], ddof=1) / math.sqrt(3))
    assert (second.mean, second.number) == (0.375, 4)
    (pair,) = comparisons(rows)
    assert (pair.first, pair.second, pair.number) == ("a", "b", 3)
    assert pair.difference == pytest.approx(0.5)
    assert pair.first_higher == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({}, "no metric is named"),
        ({"ssim": {}}, "no metric 'ssim' of stored maps"),
        ({"insertion": {"step": 128}}, r"other options \(step: 256 there, 128 now\)"),
        ({"insertion": {"stride": 1}}, "insertion has no option 'stride'"),
        ({"infidelity": {}}, "keeps their sum"),
    ],
)
def test_what_cannot_be_measured(run, measures, message):
    with pytest.raises(ValueError, match=message):
        evaluate(run[0], SOURCE, model, PREPARE, measures, progress=False)


def test_metrics_of_stored_maps_are_those_that_need_no_more():
    known = {"insertion", "road", "idsds", "faithfulness_correlation", "region_perturbation"}
    assert known <= set(measuring.OF_MODEL)
    more = {"complementary_insertion", "irof", "difull", "max_sensitivity", "linear_imputation"}
    assert not more & set(measuring.METRICS)
    assert {"attribution_auc", "segmentation_iou"} <= set(measuring.OF_TRUTH)
    assert set(measuring.OF_MAP) == {
        "boundary_dependency",
        "complexity",
        "effective_complexity",
        "sparseness",
    }
    for name in measuring.METRICS:
        said = re.search(r"(lower|higher) is", inspect.getdoc(getattr(metrics, name)), re.I)
        assert not said or (said[1].lower() == "lower") == (name in measuring.LOWER), name


def test_one_example_has_no_error_and_makes_a_page(tmp_path):
    explain(JOB._replace(limit=1), SOURCE, model, PREPARE, tmp_path, progress=False)
    evaluate(tmp_path, SOURCE, model, PREPARE, {"pointing_game": {}}, progress=False)
    page = report(tmp_path, SOURCE, PREPARE).read_text()
    found = json.loads(re.search(r'id="content">(.*?)</script>', page, re.S)[1])
    assert {row["standard_error"] for row in found["means"]} == {None}
    assert {row["number"] for row in found["means"]} == {1}


def test_other_weights_are_refused(run):
    other = nnx.Linear(3072, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="explained with other weights"):
        evaluate(run[0], SOURCE, other, PREPARE, {"insertion": {"step": 256}}, progress=False)


def test_a_run_must_be_there_and_done(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate(tmp_path / "none", SOURCE, model, PREPARE, MEASURES)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        evaluate(tmp_path, SOURCE, model, PREPARE, MEASURES)


def test_a_page_that_cannot_be_written_leaves_nothing(run, tmp_path, monkeypatch):
    out, _ = run

    def full(self, text, encoding):
        self.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    page = tmp_path / "page.html"
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"page\.html cannot be written: No space left"):
        report(out, SOURCE, PREPARE, images=1, destination=page)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"page\.html cannot be written: No such file"):
        report(out, SOURCE, PREPARE, images=1, destination=tmp_path / "none" / "page.html")


def test_the_page_holds_everything(run, tmp_path):
    out, _ = run
    path = report(out, SOURCE, PREPARE, images=3)
    (thesis := tmp_path / "thesis.html").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis.html is there and was not written by"):
        report(out, SOURCE, PREPARE, images=3, destination=thesis)
    assert report(out, SOURCE, PREPARE, images=3) == path
    page = path.read_text()
    assert path == out / "report.html"
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    found = re.search(r'id="content">(.*?)</script>', page, re.S)
    content = json.loads(found[1])
    assert [g["id"] for g in content["gallery"]] == ["im0", "im2", "im4"]
    assert {m["name"] for m in content["methods"]} == set(JOB.methods)
    assert "cost" in content["methods"][0]
    assert len(content["means"]) == 2 * len(MEASURES)
    assert len(content["comparisons"]) == len(MEASURES)
    assert content["curves"].keys() == {"insertion"}
    assert all(abs(line[-1] - line[0]) > 0 for line in content["curves"]["insertion"].values())
    keys = re.findall(r"@\w+\{(\w+)", content["bibtex"])
    assert {"simonyan2014deep", "petsiuk2018rise"} <= set(keys)
    assert len(keys) == len(set(keys))
    entry = content["gallery"][0]
    assert entry["scores"]["insertion"].keys() == JOB.methods.keys()
    assert -1e-6 < entry["disagreement"]["saliency"]["input_x_gradient"] < 2
