"""Checkpoints as training scripts write them: foreign objects, averages, prefixes, shards."""

import argparse
import collections
import datetime
import json
import logging
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from forged import literal, mapping, name, program, state, tensor, zipped
from safetensors.numpy import save_file

from jaxattr import models
from weights_conversion import CheckpointError, convert, open_checkpoint, torch_name
from weights_conversion.matching import MAX_LINES

FOREIGN = {
    "namespace": argparse.Namespace(lr=0.1, out=Path("runs")),
    "scalar": np.float64(0.9),
    "array": np.arange(3),
    "path": Path("/data"),
    "time": datetime.datetime(2026, 1, 2),
    "set": {1, 2},
    "frozenset": frozenset({"a"}),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("abc"),
    "deque": collections.deque([1, 2]),
    "complex": 1 + 2j,
    "bytearray": bytearray(b"abc"),
    "tuple keys": {(1, 2): 3, ("a", ("b",)): 4, 10**5000: 5, True: 6},
    "exception": ValueError("x"),
    "class": argparse.Namespace,
    "random state": np.random.default_rng(0).bit_generator.state,
}


@pytest.fixture
def write(tmp_path):
    """Write bytes, and return where."""

    def write(content, file="checkpoint.pth"):
        (tmp_path / file).write_bytes(content)
        return tmp_path / file

    return write


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_object_hides_no_weights(write, kind, protocol):
    value = pickle.dumps(FOREIGN[kind], protocol)[2:-1]  # first, so that its memo is its own
    body = b"}(K\x01" + value + literal("model") + mapping(w=tensor()) + b"u"
    path = write(zipped(program(body)))
    assert open_checkpoint(path)["w"].shape == (2, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_what_torch_reads_is_read(torch, tmp_path, new):
    """Whatever `weights_only=True` allows, beside a state dict."""
    kinds = FOREIGN | {
        "sparse": torch.eye(3).to_sparse() if new else None,
        "layout": torch.strided,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": torch.empty(3, device="meta"),
        "module": torch.nn.Linear(2, 2),
        "parameters": torch.nn.ParameterList([torch.ones(2)]),
    }
    path = tmp_path / "checkpoint.pth"
    saved = {"epoch": 3, **kinds, "state_dict": {"w": torch.arange(6.0)}}
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    assert open_checkpoint(path)["w"].tolist() == list(range(6))


def test_a_foreign_object_in_the_state_dict_is_named(write):
    body = mapping(w=tensor(), args=pickle.dumps(argparse.Namespace(), 2)[2:-1])
    with pytest.raises(CheckpointError, match=r"'args' of its state dict is a '.*Namespace'"):
        open_checkpoint(write(zipped(program(body))))


RAW, MEAN = tensor(), tensor((3, 2), (2, 1))


@pytest.mark.parametrize(
    ("raw", "mean"), [("state_dict", "state_dict_ema"), ("model", "model_ema")]
)
def test_the_average_is_preferred_and_said(write, caplog, raw, mean):
    path = write(zipped(program(mapping(**{raw: mapping(w=RAW), mean: mapping(w=MEAN)}))))
    with caplog.at_level(logging.WARNING):
        averaged = open_checkpoint(path)
    assert f"of its weights those of '{mean}' are taken; it has '{raw}' too" in caplog.text
    assert averaged["w"].shape == (3, 2)
    assert averaged.key == mean
    last = open_checkpoint(path, ema=False)
    assert (last["w"].shape, last.key) == ((2, 3), raw)
    assert open_checkpoint(path, key=raw)["w"].shape == (2, 3)


@pytest.mark.parametrize(
    "wrapper",
    ["checkpoint", "model_state", "params", "teacher", "model_ema", "state_dict_ema", "params_ema"],
)
def test_a_wrapper_alone_is_found(write, wrapper):
    path = write(zipped(program(mapping(epoch=literal(3), **{wrapper: mapping(w=RAW)}))))
    assert list(open_checkpoint(path)) == ["w"]


def test_a_key_leads_to_the_state_dict(write):
    models = mapping(**{"student": mapping(w=RAW), "my.teacher": mapping(w=MEAN)})
    path = write(zipped(program(mapping(nets=models, optimizer=mapping(state=literal({}))))))
    assert open_checkpoint(path, key="nets.my.teacher")["w"].shape == (3, 2)
    said = r"no dict 'teacher'; those with tensors are: 'nets\.student', 'nets\.my\.teacher'"
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(path, key="teacher")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", ""]
)
def test_prefixes_of_wrappers(write, prefix):
    path = write(zipped(state(**{f"{prefix}{n}.weight": tensor() for n in ("conv1", "fc")})))
    assert list(open_checkpoint(path)) == ["conv1.weight", "fc.weight"]


def test_the_counter_of_an_averaged_model(torch, tmp_path):
    net = torch.nn.Linear(3, 2)
    averaged = torch.optim.swa_utils.AveragedModel(net)
    torch.save({"model_ema": averaged.state_dict()}, tmp_path / "swa.pth")
    assert list(open_checkpoint(tmp_path / "swa.pth")) == ["weight", "bias"]


def net():
    return nnx.Sequential(*[nnx.Linear(3, 3, rngs=nnx.Rngs(0)) for _ in range(8)])


def weights(prefix=""):
    one = {"weight": np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)}
    return {f"{prefix}layers.{i}.{k}": v for i in range(8) for k, v in one.items()}


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "a.b."])
def test_what_all_keys_begin_with_is_taken_off(prefix):
    assert len(nnx.to_flat_state(convert(weights(prefix), nnx.eval_shape(net)))) == 16


def test_a_mismatch_is_told_in_ten_lines():
    mixed = weights("model.") | {"criterion.weight": np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError) as error:
        convert(mixed, nnx.eval_shape(net))
    lines = str(error.value).splitlines()
    assert len(lines) == MAX_LINES
    assert lines[-3].startswith("  and 27 more: python -m weights_conversion MODEL --check FILE")
    assert lines[-2].startswith("  near: model.layers.0.bias to layers.0.bias, model.")
    assert lines[-1] == "  16 keys fit behind 'model.': take it off by rename={'model.': ''}"
    with pytest.raises(CheckpointError, match="nothing fits: this is another architecture"):
        convert({f"x{i}.w": np.zeros(3, np.float32) for i in range(9)}, nnx.eval_shape(net))
    del mixed["criterion.weight"]
    renamed = convert(mixed, nnx.eval_shape(net), rename={"model.": ""})
    assert len(nnx.to_flat_state(renamed)) == 16


def torch_weights(classes, last="linear", prefix=""):
    """A state dict of a CIFAR ResNet-20 with another classifier."""
    model = models.skeleton("cifar_resnet20", classes=classes)
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        shape = variable.shape
        if path[-1] == "kernel":
            shape = (*shape[:-3:-1], *shape[:-2])
        key = torch_name(path)
        key = f"{last}{key.removeprefix('linear')}" if key.startswith("linear.") else key
        found[prefix + key] = np.full(shape, len(found), np.float32)
    return found


@pytest.mark.parametrize(("last", "prefix"), [("head", ""), ("linear.1", "model.")])
def test_a_classifier_of_another_name_and_size(tmp_path, caplog, monkeypatch, last, prefix):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    saved = torch_weights(7, last, prefix)
    save_file(saved, tmp_path / "mine.safetensors")
    with caplog.at_level(logging.WARNING):
        loaded = models.load("cifar_resnet20", path=tmp_path / "mine.safetensors")
    assert f"its layer '{last}' is taken for the classifier, of 7 classes" in caplog.text
    assert loaded.classes == tuple("0123456")
    np.testing.assert_array_equal(loaded.model.linear.bias[...], saved[f"{prefix}{last}.bias"])


def test_renaming_from_load(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    saved = torch_weights(10) | {"aux.weight": np.zeros((2, 64), np.float32)}
    saved = {f"enc.{k}" if k.startswith("layer1") else k: v for k, v in saved.items()}
    del saved["aux.weight"]
    path = tmp_path / "mine.safetensors"
    save_file(saved, path)
    assert any(line == "unused: enc.layer1.0.conv1.weight" for line in misfits(path))
    assert misfits(path, rename={"enc.": ""}) == []
    for rename in ({"enc.": ""}, lambda key: key.removeprefix("enc.")):
        model = models.load("cifar_resnet20", path=path, rename=rename).model
        kernel = saved["enc.layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(model.layer1[0].conv1.kernel[...], kernel)


def misfits(path, **options):
    return models.misfits("cifar_resnet20", path, **options)


def test_shards_by_their_index(tmp_path):
    whole = weights()
    parts = {"a.safetensors": list(whole)[:5], "b.safetensors": list(whole)[5:]}
    for file, keys in parts.items():
        save_file({k: whole[k] for k in keys}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    placed = {k: file for file, keys in parts.items() for k in keys}
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    for path in (index, tmp_path):
        found = open_checkpoint(path)
        assert dict(found).keys() == whole.keys()
        assert found.shapes == {k: v.shape for k, v in whole.items()}
    for wrong, said in {
        "../a.safetensors": "outside its folder",
        "/etc/passwd": "outside its folder",
        "c.safetensors": "'c.safetensors' is missing",
        "a.safetensors": "'layers.7.weight' is not in 'a.safetensors'",
        7: "no index of a checkpoint",
    }.items():
        index.write_text(json.dumps({"weight_map": placed | {"layers.7.weight": wrong}}))
        with pytest.raises(CheckpointError, match=said):
            open_checkpoint(index)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "`git lfs pull`"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file, as Keras writes"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
        (b'{"weight_map": {}}', "text in JSON"),
    ],
)
def test_other_files_are_named_for_what_they_are(write, content, said):
    with pytest.raises(CheckpointError, match=rf"no checkpoint of torch's .*{said}"):
        open_checkpoint(write(content))


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torchscript_is_named(torch, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"a program of TorchScript .* save torch\.jit\.load"):
        open_checkpoint(tmp_path / "net.pt")


SIZE, LIST = name("torch.Size"), b"](" + b"K\x01" * 200_000 + b"e"
SUBCLASS = name("torch._tensor._rebuild_from_type_v2")
PAIRS = b"](" + b"".join(literal(str(i)) + b"N\x86" for i in range(5_000)) + b"e"
NAME = b"\x8d" + struct.pack("<Q", 10**6) + b"a" * 10**6
BUILDS = {
    "a list copied by shapes": (LIST + b"q\x01" + (SIZE + b"h\x01\x85R") * 1500, "axes"),
    "pairs copied": (
        PAIRS + b"q\x01" + (name("collections.OrderedDict") + b"h\x01\x85R") * 1500,
        "copies more than",
    ),
    "subclasses in subclasses": (
        SUBCLASS + (b"(" + SUBCLASS + b"N") * 3000 + b")" + b"Nt" * 3000 + b"R",
        "builds no tensor",
    ),
    "names joined": (NAME + b"q\x01" + b"h\x01h\x01\x93" * 1000, "names something by"),
    "a huge key": (b"}" + literal(10**5000) + literal({1: 2}) + b"s", "its keys are: a Foreign"),
}


@pytest.mark.parametrize("kind", BUILDS)
def test_what_a_pickle_builds_is_bounded(write, kind):
    """In memory, too: 224 kB of a list copied by shapes once took 2.3 GB."""
    body, said = BUILDS[kind]
    path = write(zipped(program(body)))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pth: .*{said}"):
        open_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
