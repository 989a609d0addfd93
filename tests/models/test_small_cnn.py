"""The small networks of MNIST and CIFAR-10, and their training."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from jaxattr import models
from weights_conversion import CheckpointError, save

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("entry", models.TO_TRAIN, ids=lambda entry: entry.model)
def test_shapes_and_sizes(entry):
    model, side = models.skeleton(entry.model), entry.preprocess.crop_size
    x = jax.ShapeDtypeStruct((2, side, side, 3), np.float32)
    assert jax.eval_shape(lambda model, x: model(x), model, x).shape == (2, len(entry.classes))
    assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == entry.parameters
    with pytest.raises(FileNotFoundError, match=f"benchmarks/train.py {entry.model}"):
        models.load(entry.model)


@pytest.mark.parametrize("written", ["by save", "by Orbax", "by a manager of Orbax"])
def test_a_trained_network_is_loaded(tmp_path, monkeypatch, written):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    model, path = models.cifar_cnn(classes=3, rngs=nnx.Rngs(1)), tmp_path / "weights"
    model.features[1].mean[...] += 1
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    if written == "by save":
        save(state, path)
    elif written == "by Orbax":
        with ocp.StandardCheckpointer() as writer:
            writer.save(path, {"net": state, "step": np.array([0.5], np.float32)})
    else:
        with ocp.CheckpointManager(path) as writer:
            for step in (9, 10):
                saved = jax.tree.map(lambda a, n=step: a * (n - 9), state)
                writer.save(step, args=ocp.args.StandardSave(nnx.to_pure_dict(saved)))
    key = "net" if written == "by Orbax" else None
    loaded = models.load("cifar_cnn", path=path, key=key, classes=["a", "b", "c"])
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    run = jax.jit(lambda model, x: model(x))
    np.testing.assert_array_equal(run(loaded.model, x), run(model, x))
    assert loaded.classes == ("a", "b", "c")
    assert loaded.preprocess == models.TO_TRAIN[1].preprocess
    assert models.load("cifar_cnn", path=path, key=key).classes == ("0", "1", "2")
    if written == "by save":
        file = max(path.rglob("*"), key=lambda file: file.stat().st_size)
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        with pytest.raises(CheckpointError, match="do not agree with its manifest"):
            models.load("cifar_cnn", path=path)


@pytest.mark.slow
def test_training_goes_on_from_its_last_epoch(shared, tmp_path):
    def train(epochs, out):
        command = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "mnist_cnn", str(shared)]
        rest = [str(tmp_path / out), "--epochs", str(epochs), "--limit", "256", "--rate", "0.02"]
        done = subprocess.run([*command, *rest], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    assert len(train(2, "net")) == 2
    assert not train(2, "net")
    model = models.load("mnist_cnn", path=tmp_path / "net" / "weights").model
    assert np.abs(model.classifier[2].bias[...]).max() > 0
