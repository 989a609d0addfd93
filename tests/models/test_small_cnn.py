"""The small networks of MNIST and CIFAR-10, and their training."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from jaxattr import models
from weights_conversion import restore

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("build", "side", "parameters"),
    [
        (models.mnist_cnn, 28, 422_218),
        (models.cifar_cnn, 32, 2_168_362),
        (models.cifar_vgg16, 32, 14_724_042),
        (models.cifar_vit, 32, 898_090),
    ],
)
def test_shapes_and_sizes(build, side, parameters):
    key = SimpleNamespace(params=lambda: jax.random.key(0))
    model = nnx.eval_shape(lambda: build(rngs=key))
    x = jax.ShapeDtypeStruct((2, side, side, 3), np.float32)
    assert jax.eval_shape(lambda model, x: model(x), model, x).shape == (2, 10)
    assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == parameters


@pytest.mark.slow
def test_training_goes_on_from_its_last_epoch(shared, tmp_path):
    def train(epochs, out):
        command = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "mnist_cnn", str(shared)]
        rest = [str(tmp_path / out), "--epochs", str(epochs), "--limit", "256", "--rate", "0.02"]
        done = subprocess.run([*command, *rest], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    assert len(train(2, "net")) == 2
    assert not train(2, "net")
    model = models.mnist_cnn()
    before = nnx.state(model, nnx.Param)["classifier"][2]["bias"][...]
    nnx.update(model, restore(tmp_path / "net" / "weights", model))
    assert np.abs(model.classifier[2].bias[...] - before).max() > 0
