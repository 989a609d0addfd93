"""The generic converter, BatchNorm folding, and the cache of converted weights."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filelock import FileLock
from flax import nnx
from safetensors.numpy import save_file
from speed import mostly_slow

import weights_conversion.cache
from weights_conversion import (
    CheckpointError,
    convert,
    fold_batch_norm,
    open_checkpoint,
    restore,
    restore_or_convert,
    save,
)


class Net(nnx.Module):
    """Every kind of layer the converter knows: grouped, depthwise, normalized, dense."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(8, use_running_average=True, epsilon=1e-5, rngs=rngs)
        self.blocks = nnx.List(
            [
                nnx.Conv(8, 12, (3, 5), padding=((1, 1), (2, 2)), feature_group_count=4, rngs=rngs),
                nnx.Conv(12, 24, (3, 3), padding=1, feature_group_count=12, rngs=rngs),
                nnx.BatchNorm(24, use_running_average=True, epsilon=1e-5, rngs=rngs),
            ]
        )
        self.norm = nnx.BatchNorm(24, use_running_average=True, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(6 * 4 * 24, 10, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        y = self.blocks[2](self.blocks[1](self.blocks[0](x)))
        y = self.norm(y + jnp.tile(x, (1, 1, 1, 3)))
        return self.fc(self.drop(y.reshape(len(y), -1)))


FLATTEN = {"fc": (24, 6, 4)}


def skeleton():
    return nnx.eval_shape(lambda: Net(nnx.Rngs(0)))


@pytest.fixture(scope="module")
def weights():
    """A state dict of torch's for Net, made from nothing but its shapes."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def norm(name, n):
        return {
            f"{name}.weight": normal(n),
            f"{name}.bias": normal(n),
            f"{name}.running_mean": normal(n),
            f"{name}.running_var": np.exp(normal(n)),
            f"{name}.num_batches_tracked": np.int64(3),
        }

    return {
        "conv1.weight": normal(8, 3, 3, 3),
        **norm("bn1", 8),
        "blocks.0.weight": normal(12, 2, 3, 5),
        "blocks.0.bias": normal(12),
        "blocks.1.weight": normal(24, 1, 3, 3),
        "blocks.1.bias": normal(24),
        **norm("blocks.2", 24),
        **norm("norm", 24),
        "fc.weight": normal(10, 24 * 6 * 4),
        "fc.bias": normal(10),
    }


def loaded(weights, **options):
    model = Net(nnx.Rngs(1))
    nnx.update(model, convert(weights, skeleton(), flatten=FLATTEN, **options))
    return model


IMAGES = np.random.default_rng(1).standard_normal((2, 6, 4, 3)).astype(np.float32)


def test_equals_torch(torch, weights):
    f = torch.nn.functional
    w = {key: torch.as_tensor(value) for key, value in weights.items()}

    def norm(x, name):
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return f.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])

    x = torch.as_tensor(IMAGES.transpose(0, 3, 1, 2).copy())
    x = norm(f.conv2d(x, w["conv1.weight"], padding=1), "bn1").relu()
    y = f.conv2d(x, w["blocks.0.weight"], w["blocks.0.bias"], padding=(1, 2), groups=4)
    y = f.conv2d(y, w["blocks.1.weight"], w["blocks.1.bias"], padding=1, groups=12)
    y = norm(norm(y, "blocks.2") + x.tile(1, 3, 1, 1), "norm").flatten(1)
    expected = f.linear(y, w["fc.weight"], w["fc.bias"]).numpy()
    scale = abs(expected).max()
    np.testing.assert_allclose(loaded(weights)(IMAGES) / scale, expected / scale, atol=2e-6)


def test_elements_go_where_they_belong(weights):
    state = convert(weights, skeleton(), flatten=FLATTEN)
    kernel = state["blocks"][0]["kernel"][...]
    np.testing.assert_array_equal(kernel[2, 4, 1, 7], weights["blocks.0.weight"][7, 1, 2, 4])
    dense = state["fc"]["kernel"][...].reshape(6, 4, 24, 10)
    torch_dense = weights["fc.weight"].reshape(10, 24, 6, 4)
    np.testing.assert_array_equal(dense, torch_dense.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(state["bn1"]["var"][...], weights["bn1.running_var"])


def test_every_rank():
    rngs = nnx.Rngs(0)
    sequence = nnx.Conv(2, 3, (5,), rngs=rngs)
    volume = nnx.Conv(2, 3, (5, 6, 7), rngs=rngs)
    for model, shape in (sequence, (3, 2, 5)), (volume, (3, 2, 5, 6, 7)):
        weight = np.random.default_rng(0).standard_normal(shape)
        state = convert({"weight": weight, "bias": np.zeros(3)}, model)
        expected = np.moveaxis(weight, (0, 1), (-1, -2)).astype(np.float32)
        np.testing.assert_array_equal(state["kernel"][...], expected)
    embedding = nnx.Embed(5, 4, rngs=rngs)
    table = np.arange(20.0, dtype=np.float32).reshape(5, 4)
    assert convert({"weight": table}, embedding)["embedding"][...].tolist() == table.tolist()


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("outputs", [4, 5])
def test_transposed_convolutions_are_torchs(torch, outputs, transpose_kernel):
    """torch's `padding` p is d (k - 1) - p here, more at the end by its `output_padding`."""
    stride, padding, more, dilation = (2, 3), (1, 2), (1, 0), (1, 2)
    theirs = torch.nn.ConvTranspose2d(4, outputs, (3, 4), stride, padding, more, 1, True, dilation)
    sides = [
        (d * (k - 1) - p, d * (k - 1) - p + m)
        for k, p, m, d in zip((3, 4), padding, more, dilation, strict=True)
    ]

    def build():
        options = {"padding": sides, "kernel_dilation": dilation, "rngs": nnx.Rngs(0)}
        layer = nnx.ConvTranspose(
            4, outputs, (3, 4), stride, transpose_kernel=transpose_kernel, **options
        )
        return nnx.Sequential(nnx.relu, layer)

    state = torch.nn.Sequential(torch.nn.ReLU(), theirs).state_dict()
    weights = {f"layers.{key}": value.detach().numpy() for key, value in state.items()}
    ours = build()
    nnx.update(ours, convert(weights, nnx.eval_shape(build)))
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 4)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).relu().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_transposed_convolutions_in_groups_are_refused():
    """Flax has none, so torch's weight has another shape."""
    layer = nnx.eval_shape(lambda: nnx.ConvTranspose(4, 6, (3, 3), rngs=nnx.Rngs(0)))
    with pytest.raises(CheckpointError, match=re.escape("(4, 3, 3, 3), the model's (4, 6, 3, 3)")):
        convert({"weight": np.zeros((4, 3, 3, 3)), "bias": np.zeros(6)}, layer)


def test_all_problems_in_one_error(weights):
    wrong = dict(weights)
    del wrong["conv1.weight"], wrong["norm.running_var"]
    wrong["head.weight"] = np.zeros(3)
    wrong["fc.bias"] = np.zeros(1000)
    wrong["bn1.weight"] = np.zeros(8, np.int32)
    with pytest.raises(CheckpointError) as error:
        convert(wrong, skeleton(), flatten={"fc": (24, 5, 4), "gone": (1, 1, 1)})
    assert str(error.value).splitlines()[1:] == [
        "  mis-typed: bn1.weight is int32, not a floating type",
        "  missing: conv1.weight",
        "  mis-shaped: fc.bias is (1000,), the model's (10,)",
        "  mis-shaped: fc.weight is (10, 576), which does not take maps of (24, 5, 4)",
        "  missing: norm.running_var",
        "  unused: head.weight",
        "  flatten names no dense layer of the model: gone",
    ]


def test_rename(weights):
    renamed = {f"_{key}": value for key, value in weights.items()}
    state = convert(renamed, skeleton(), flatten=FLATTEN, rename=lambda key: key[1:])
    expected = convert(weights, skeleton(), flatten=FLATTEN)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    with pytest.raises(CheckpointError, match=r"ambiguous: fc.weight and fc.bias are both same"):
        convert({"fc.weight": IMAGES, "fc.bias": IMAGES}, skeleton(), rename=lambda key: "same")


def test_dtypes(weights):
    state = convert(weights, skeleton(), flatten=FLATTEN, dtype=jnp.bfloat16)
    assert state["conv1"]["kernel"].dtype == jnp.bfloat16
    assert state["bn1"]["var"].dtype == jnp.float32
    expected = jnp.asarray(weights["bn1.weight"]).astype(jnp.bfloat16)
    np.testing.assert_array_equal(state["bn1"]["scale"][...], expected)
    halves = {key: np.asarray(value, np.float16) for key, value in weights.items()}
    state = convert(halves, skeleton(), flatten=FLATTEN)
    assert state["conv1"]["kernel"].dtype == jnp.float32


def test_leaves_model_and_source_alone(weights):
    model = Net(nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.state(model, nnx.Param))
    copies = {key: np.array(value) for key, value in weights.items()}
    state = convert(copies, model, flatten=FLATTEN)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model, nnx.Param))
    kept = np.array(state["bn1"]["scale"][...])
    for array in copies.values():
        array[...] = 7  # a converted state has its own memory
    np.testing.assert_array_equal(state["bn1"]["scale"][...], kept)


# --- folding ---


def test_folded_model_is_equal(weights):
    model = loaded(weights)
    folded = fold_batch_norm(model, IMAGES)
    norms = [path for path, m in nnx.iter_graph(folded) if isinstance(m, nnx.BatchNorm)]
    assert norms == [("norm",)]  # it follows a sum
    assert folded.conv1.bias is not None
    assert model.conv1.bias is None
    expected = model(IMAGES)
    scale = abs(expected).max()
    np.testing.assert_allclose(folded(IMAGES) / scale, expected / scale, atol=2e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(folded(IMAGES) / scale, 0 * expected, atol=1e-2)


def test_folded_weights_restore(weights, tmp_path):
    shape = jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)
    folded = fold_batch_norm(loaded(weights), shape)
    save(nnx.state(folded, (nnx.Param, nnx.BatchStat)), tmp_path / "folded")
    empty = nnx.eval_shape(lambda: fold_batch_norm(Net(nnx.Rngs(0)), shape))
    state = restore(tmp_path / "folded", empty)
    jax.tree.map(
        np.testing.assert_array_equal, state, nnx.state(folded, (nnx.Param, nnx.BatchStat))
    )


class Shared(nnx.Module):
    """One convolution in two places: folding either BatchNorm would change the other."""

    def __init__(self, rngs):
        self.first = self.second = nnx.Conv(3, 3, (1, 1), rngs=rngs)
        self.norm1 = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
        self.norm2 = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return self.norm2(self.second(self.norm1(self.first(x))))


def test_folding_refuses():
    with pytest.raises(ValueError, match="no BatchNorm that follows"):
        fold_batch_norm(Shared(nnx.Rngs(0)), IMAGES)
    model = Net(nnx.Rngs(0))
    model.train()
    with pytest.raises(ValueError, match=r"blocks.2|bn1.*model.eval"):
        fold_batch_norm(model, IMAGES)


# --- the cache ---


@pytest.fixture
def source(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "net.safetensors"
    save_file({key: np.asarray(value) for key, value in weights.items()}, path)
    return path


def cached(source, **options):
    return restore_or_convert(source, skeleton(), name="net", flatten=FLATTEN, **options)


def entries(source):
    return sorted((source.parent / "cache" / "converted").iterdir())


def forbid(monkeypatch):
    def conversion(*args, **options):
        raise AssertionError("converted again")

    monkeypatch.setattr(weights_conversion.cache, "convert", conversion)


@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.bfloat16])
def test_second_load_converts_nothing(source, monkeypatch, dtype):
    first = cached(source, dtype=dtype)
    forbid(monkeypatch)
    second = cached(source, dtype=dtype)
    expected = first["conv1"]["kernel"].dtype
    assert second["conv1"]["kernel"].dtype == expected
    jax.tree.map(np.testing.assert_array_equal, first, second)
    nnx.update(Net(nnx.Rngs(0)), second)


def test_entries_are_told_apart(source, weights):
    cached(source)
    cached(source, dtype=jnp.bfloat16)
    restore_or_convert(source, skeleton(), name="other", flatten=FLATTEN)
    restore_or_convert(source, skeleton(), name="net", flatten={"fc": (48, 3, 4)})
    assert len(entries(source)) == 4
    changed = {key: np.asarray(value) for key, value in weights.items()}
    changed["fc.bias"] = changed["fc.bias"] + 1
    stat = source.stat()
    save_file(changed, source)  # the same path and size
    assert source.stat().st_size == stat.st_size
    np.testing.assert_array_equal(cached(source)["fc"]["bias"][...], changed["fc.bias"])
    assert len(entries(source)) == 5


def test_changed_source_is_seen_after_its_hash_was_noted(source):
    os.utime(source, (1e9, 1e9))  # old, so that its hash is noted
    first = cached(source)["fc"]["bias"][...]
    assert len(list((source.parent / "cache" / "hashes").iterdir())) == 1
    content = source.read_bytes()
    bias = np.asarray(first).tobytes()
    source.write_bytes(content.replace(bias, np.zeros_like(first).tobytes()))
    assert cached(source)["fc"]["bias"][...].tolist() == [0] * 10


def _damages(entry):
    files = sorted(path for path in entry.rglob("*") if path.is_file())
    data = max(files, key=lambda path: path.stat().st_size)
    yield lambda: data.write_bytes(data.read_bytes()[:-100])
    middle = data.stat().st_size // 2
    yield lambda: data.write_bytes(
        data.read_bytes()[:middle]
        + bytes([data.read_bytes()[middle] ^ 1])
        + data.read_bytes()[middle + 1 :]
    )
    yield data.unlink
    yield (entry / "manifest.json").unlink
    yield lambda: (entry / "manifest.json").write_text("{")
    yield lambda: (entry / "_METADATA").write_text("{}")

    def consistent_but_unreadable():
        manifest = json.loads((entry / "manifest.json").read_text())
        (entry / "_METADATA").unlink()
        del manifest["_METADATA"]
        (entry / "manifest.json").write_text(json.dumps(manifest))

    yield consistent_but_unreadable


@pytest.mark.parametrize("index", mostly_slow(range(7), [0, 3, 6]))
def test_damaged_entry_is_built_anew(source, monkeypatch, index, caplog):
    first = cached(source)
    (entry,) = entries(source)
    list(_damages(entry))[index]()
    jax.tree.map(np.testing.assert_array_equal, first, cached(source))
    assert "is built anew" in caplog.text
    assert entries(source) == [entry]  # and nothing is left over
    forbid(monkeypatch)
    jax.tree.map(np.testing.assert_array_equal, first, cached(source))


def test_a_full_disk_keeps_no_weights(source, monkeypatch, caplog):
    usage = shutil.disk_usage("/")._replace(free=1000)
    with monkeypatch.context() as m:
        m.setattr(shutil, "disk_usage", lambda _: usage)
        first = cached(source)
    assert re.search(r"not kept, and will be converted again: .* has 0 MiB of space", caplog.text)

    def fail(*_):
        raise ValueError("RESOURCE_EXHAUSTED: no space\nand so on")

    with monkeypatch.context() as m:
        m.setattr(weights_conversion.cache, "save", fail)
        jax.tree.map(np.testing.assert_array_equal, first, cached(source))
    assert "converted again: RESOURCE_EXHAUSTED: no space\n" in caplog.text
    assert not entries(source)


def test_cache_that_cannot_be_written(source, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file in the way")
    np.testing.assert_array_equal(cached(source)["fc"]["bias"].shape, (10,))
    assert "not kept" in caplog.text


def test_failed_conversion_leaves_nothing(source):
    with pytest.raises(CheckpointError, match="flatten"):
        restore_or_convert(source, skeleton(), name="net", flatten={"gone": (1, 1, 1)})
    assert not (source.parent / "cache" / "converted").exists()


def test_save_replaces_nothing(source, tmp_path):
    state = convert(open_checkpoint(source), skeleton(), flatten=FLATTEN)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(OSError, match="home"):
        save(state, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_restore_checks_the_model(source, tmp_path):
    save(convert(open_checkpoint(source), skeleton(), flatten=FLATTEN), tmp_path / "net")
    model = skeleton()
    model.fc = nnx.eval_shape(lambda: nnx.Linear(576, 11, rngs=nnx.Rngs(0)))
    with pytest.raises(CheckpointError, match=re.escape("at fc.bias, fc.kernel")):
        restore(tmp_path / "net", model)


@pytest.mark.slow
def test_drafts_of_killed_writers_are_removed(source):
    """And only those: a draft whose lock is held is being written."""
    script = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
import weights_conversion.cache
from test_convert import FLATTEN, restore_or_convert, skeleton
weights_conversion.cache.manifest = lambda _: os.kill(os.getpid(), signal.SIGKILL)
restore_or_convert(sys.argv[1], skeleton(), name="net", flatten=FLATTEN)
"""
    command = [sys.executable, "-c", script, str(source), *sys.path[:8]]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (draft,) = entries(source)
    assert draft.name.startswith(".net")
    other = draft.with_name(".other.1")
    other.mkdir()
    with FileLock(other / weights_conversion.cache._LOCK):
        cached(source)
        entry, busy = sorted(entries(source), key=lambda path: path.name.startswith("."))
        assert (entry.name.startswith("net"), busy) == (True, other)
    cached(source, dtype=jnp.bfloat16)
    assert not [path for path in entries(source) if path.name.startswith(".")]


@pytest.mark.slow
def test_two_processes_at_once(source):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        sums = pool.map(_load, [source] * 2)
    expected = cached(source)
    assert sums[0] == sums[1] == float(expected["fc"]["kernel"][...].sum())
    assert len(entries(source)) == 1


def _load(source):
    return float(cached(source)["fc"]["kernel"][...].sum())


MEMORY = """
import sys, jax, numpy as np
from flax import nnx
from weights_conversion import convert, open_checkpoint
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
model = nnx.eval_shape(lambda: nnx.Linear(6000, 4000, rngs=nnx.Rngs(0)))
jax.device_put(np.ones(1))
before = peak()
keep = [convert(open_checkpoint(sys.argv[1]), model) for _ in range(3)]
jax.block_until_ready(keep)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_is_one_copy(torch, tmp_path):
    path = tmp_path / "large.pth"
    torch.save({"weight": torch.ones(4000, 6000), "bias": torch.ones(4000)}, path)  # 91.6 MiB
    command = [sys.executable, "-c", MEMORY, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 250 < float(out) < 310  # MiB for three copies; the file and a transposition cost nothing
