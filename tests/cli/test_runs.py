"""A run of a network of one's own by the command line, from its checkpoint to the page."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from flax import nnx
from PIL import Image

from jaxattr import models
from jaxattr.cli.main import main
from weights_conversion import save

pytest.importorskip("grain")


@pytest.mark.slow
def test_a_network_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = models.mnist_cnn(classes=2, rngs=nnx.Rngs(0))
    save(nnx.state(model, nnx.Param), tmp_path / "weights")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    for name in ("cat", "dog"):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (30, 28, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / name / "1.png")

    def call(*command):
        done = CliRunner().invoke(main, list(command))
        assert done.exit_code == 0, done.output
        return done.output

    begin = ["run", "--data", "folder:photographs", "--method", "saliency", "--batch", "2"]
    given = ["--model", "mnist_cnn", "--checkpoint", "weights", "--classes", "names.txt"]
    assert "2 of 2 examples are explained, 2 of them now" in call(*begin, *given, "--out", "run")
    assert "2 of 2 examples are explained, 0 of them now" in call(*begin, *given, "--out", "run")
    assert "sparseness" in call("evaluate", "run", "--metrics", "sparseness")
    page = (tmp_path / call("report", "run").strip()).read_text()
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.S)[1])
    assert [g["class"] for g in content["gallery"]] == ["cat", "dog"]
    assert content["configuration"]["class_names"] == ["dog", "cat"]
