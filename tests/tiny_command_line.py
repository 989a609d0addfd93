"""The command line with a model that compiles at once; `conftest.py` makes fixtures of it."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from matplotlib.figure import Figure
from PIL import Image

from jaxattr import catalogue, models, viz
from jaxattr.cli import explain
from jaxattr.models.preprocess import Preprocess

CLASSES = ("tabby", "tiger cat", "Egyptian cat", "crane", "espresso", "crane")


class Tiny(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(8, len(CLASSES), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("conv"):
            x = nnx.relu(self.conv(x))
        return 9 * self.dense(x.mean((1, 2)))


@pytest.fixture
def no_programs_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> models.Pretrained:
    """A model that compiles at once, in the place of the real one."""
    loaded = models.Pretrained(Tiny(), Preprocess(resize_size=20, crop_size=16), CLASSES)
    monkeypatch.setattr(models, "load", lambda name, **_: loaded)
    monkeypatch.chdir(tmp_path)
    return loaded


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return [str(tmp_path / f"{name}.png") for name in ("one", "two", "three")]


@pytest.fixture
def instant(tiny: models.Pretrained, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compile and draw nothing: maps are the images by any method; returns what was run."""
    ran = []

    def program(title: str, _: object):
        def run(net, x, target=None):
            ran.append(title)
            if target is None:
                likeliest = (abs(x[:, 0, 0, 0]) * 99).astype(int) % len(CLASSES)
                return np.eye(len(CLASSES))[likeliest]
            return [x * (i + 1) for i, _ in enumerate(catalogue.panels(title))]

        return run

    monkeypatch.setattr(explain, "program", program)
    monkeypatch.setattr(viz, "figure", lambda *_, **__: Figure((0.2, 0.2)))
    return ran
