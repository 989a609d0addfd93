"""Runs over a data set: what is stored, resuming, bad images, parts, devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxattr

pytest.importorskip("grain")
from jaxattr.data import open_source
from jaxattr.runner import Job, explain, programs, writing
from jaxattr.runner.store import Store, open_store

W = np.random.default_rng(0).normal(size=(8 * 8 * 3, 4)).astype(np.float32)
JOB = Job("folder:made up", "dense", {"saliency": {}, "smoothgrad": {"samples": 2}}, batch=4)


def model(x):
    return jnp.tanh(x.reshape(len(x), -1) @ W / 20)


def prepare(image):
    return np.asarray(image.resize((8, 8)), np.float32) / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for i in range(11):
        pixels = rng.integers(0, 256, (9 + i, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
        lines.append(f"{i:02}.png,{i % 4}" + (";1" if i == 6 else ""))
    (folder / "05.png").write_bytes(b"no image")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def run(folder, out, job=JOB, **options):
    source = open_source(f"folder:{folder}")
    return explain(job, source, model, prepare, out, progress=False, **options)


def files(out):
    return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(folder, out)


def test_maps_and_facts_are_stored(folder, whole):
    out, summary = whole
    assert (summary.examples, summary.explained) == (11, 9)
    assert summary.failures.keys() == {5, 6}
    assert "05.png cannot be read" in summary.failures[5]
    assert "has the labels [1, 2]" in summary.failures[6]
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(out, mode="r")
    maps = group["maps/saliency"][:]
    x = np.stack([prepare(Image.open(folder / f"{i:02}.png")) for i in (0, 4, 10)])
    expected = jaxattr.saliency(model)(x, np.array([0, 0, 2])).sum(-1)
    np.testing.assert_allclose(maps[[0, 4, 10]], expected, atol=1e-6)
    assert np.isnan(maps[5:7]).all()
    assert np.isfinite(np.delete(maps, [5, 6], 0)).all()
    assert group["target"][:].tolist() == [0, 1, 2, 3, 0, -1, -1, 3, 0, 1, 2]
    likely = jax.nn.softmax(model(x))
    np.testing.assert_allclose(
        group["probability"][:][[0, 4, 10]], likely[[0, 1, 2], [0, 0, 2]], rtol=1e-5
    )
    np.testing.assert_array_equal(group["predicted"][:][[0, 4, 10]], likely.argmax(-1))
    assert group.attrs["ids"][:5] == [f"{i:02}.png" for i in range(5)]
    assert group.attrs["methods"]["smoothgrad"] == {"samples": 2}
    assert group.attrs["versions"]["jax"] == jax.__version__


def test_xarray_reads_a_run(whole):
    xarray = pytest.importorskip("xarray")
    maps = xarray.open_zarr(whole[0], group="maps", consolidated=False)["saliency"]
    assert (maps.dims, maps.shape) == (("image", "row", "column"), (11, 8, 8))
    facts = xarray.open_zarr(whole[0])
    assert facts["probability"].dims == ("image",)
    assert facts.attrs["ids"][0] == "00.png"


def test_a_run_at_a_url(folder, whole, tmp_path):
    run(folder, f"file://{tmp_path}/a%20run")
    assert files(tmp_path / "a run") == files(whole[0])


def test_a_folder_of_any_name(tmp_path):
    store = open_store(tmp_path / "50%20 #1?", create=True)
    store.write("zarr.json", {})
    store.array("maps/a%20b", (2,), 2, "float32", ["image"])[:].write(
        np.zeros(2, np.float32)
    ).result()
    assert store.open_array("maps/a%20b").read().result().tolist() == [0, 0]
    assert store.files() == ["maps", "zarr.json"]
    assert [str(p) for p in files(tmp_path)][:2] == [
        "50%20 #1?/maps/a%20b/c/0",
        "50%20 #1?/maps/a%20b/zarr.json",
    ]


def test_a_stopped_run_goes_on_to_the_same_bits(folder, whole, tmp_path, monkeypatch):
    out, _ = whole
    finish, left = writing.Writer.finish, iter([True, True, False])

    def stops(self, *given):
        if not next(left):
            raise KeyboardInterrupt
        return finish(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(writing.Writer, "finish", stops)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "again")
    # a batch that was written but not marked is written again
    (tmp_path / "again" / "batches" / "000001.json").unlink()
    summary = run(folder, tmp_path / "again")
    assert summary.explained == 5
    assert run(folder, tmp_path / "again").explained == 0
    assert files(tmp_path / "again") == files(out)


def test_parts_make_the_whole(folder, whole, tmp_path):
    first, second = (run(folder, tmp_path, shard=f"{i}/2") for i in range(2))
    assert (first.examples, second.examples) == (4, 7)
    assert files(tmp_path) == files(whole[0])


def test_another_run_is_refused_with_the_difference(folder, whole):
    with pytest.raises(ValueError, match=r"methods\.smoothgrad\.samples: 2 there, 3 now"):
        run(folder, whole[0], JOB._replace(methods={"saliency": {}, "smoothgrad": {"samples": 3}}))


def test_of_two_runs_that_begin_at_once_one_is_refused(folder, tmp_path, monkeypatch):
    """The other's configuration is written between the look and the claim."""
    create, other = Store.create, JOB._replace(seed=1)

    def late(self, name, content):
        theirs = {**content["attributes"], "seed": other.seed}
        assert create(self, name, {**content, "attributes": theirs})
        assert not create(self, name, content)
        return create(self, name, content)

    monkeypatch.setattr(Store, "create", late)
    with pytest.raises(ValueError, match="seed: 1 there, 0 now"):
        run(folder, tmp_path)


def test_a_folder_of_the_users_is_left_alone(folder):
    before = files(folder)
    with pytest.raises(ValueError, match=r"holds no run, but 00\.png: give a folder that is new"):
        run(folder, folder)
    assert files(folder) == before


def test_every_label_is_an_example(folder, tmp_path):
    job = JOB._replace(
        methods={"saliency": {}}, target="all-labels", dtype="float16", channels=True
    )
    assert run(folder, tmp_path, job).examples == 12
    store = open_store(tmp_path)
    assert store.open_array("target").read().result()[6:8].tolist() == [1, 2]
    maps = store.open_array("maps/saliency").read().result()
    assert (maps.shape, maps.dtype) == ((12, 8, 8, 3), np.float16)
    assert np.abs(maps[6] - maps[7]).max() > 0


def test_the_likeliest_class_and_one_for_all(folder, tmp_path):
    for target in ("top", 3):
        job = JOB._replace(methods={"saliency": {}}, target=target, limit=4)
        run(folder, tmp_path / str(target), job)
        store = open_store(tmp_path / str(target))
        found, top = (store.open_array(n).read().result() for n in ("target", "predicted"))
        np.testing.assert_array_equal(found, top if target == "top" else 3)


def test_out_of_memory_halves_the_batch(folder, whole, tmp_path, monkeypatch):
    run_ = programs.Programs._run

    def short(self, number, x, target):
        if self.parts < 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return run_(self, number, x, target)

    monkeypatch.setattr(programs.Programs, "_run", short)
    job = JOB._replace(methods={"saliency": {}})
    with pytest.warns(UserWarning, match="from batch 0 on 2 images at a time instead of 4"):
        run(folder, tmp_path, job)
    ours, theirs = (
        open_store(o).open_array("maps/saliency").read().result() for o in (tmp_path, whole[0])
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_maps_that_are_not_finite_are_named(folder, tmp_path):
    source = open_source(f"folder:{folder}")
    broken = lambda x: jnp.where(x.mean() > -1, jnp.nan, 1) * model(x)
    job = JOB._replace(methods={"saliency": {}}, limit=4)
    summary = explain(job, source, broken, prepare, tmp_path, progress=False)
    assert summary.not_finite == {"saliency": [0, 1, 2, 3]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {}}, "names no method"),
        ({"methods": {"salience": {}}}, "did you mean saliency"),
        ({"methods": {"saliency": {"step": 3}}}, "saliency has no option 'step'"),
        ({"target": "best"}, "no target 'best'"),
        ({"dtype": "int8"}, "cannot be stored as 'int8'"),
        ({"batch": 0}, "a batch of 0"),
    ],
)
def test_a_job_that_cannot_be_run(folder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(folder, tmp_path, JOB._replace(**change))


def test_a_disk_that_is_full_ends_in_a_sentence(folder, whole, tmp_path, monkeypatch):
    array, left = Store.array, iter([True] * 6)

    def full(self, *given):
        if next(left, None) is None:
            raise ValueError("No space left on device [tensorstore_spec='{}'] [code='28']")
        return array(self, *given)

    job = JOB._replace(methods={"saliency": {}})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "array", lambda self, *given: full(self, *given))
        patch.setattr(
            writing.Writer,
            "_array",
            lambda self, *given: self.store.array(given[0], (11, *given[1]), 4, *given[2:]),
        )
        with pytest.raises(OSError, match=r"No space left on device; what is there is whole"):
            run(folder, tmp_path, job)
    assert run(folder, tmp_path, job).examples == 11


SCRIPT = """
import os, sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_explanations import JOB, run
run(Path({folder!r}), Path({out!r}), JOB)
"""


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost(folder, tmp_path):
    def command(name):
        where = {"folder": str(folder), "out": str(tmp_path / name)}
        return [sys.executable, "-c", SCRIPT.format(tests=os.path.dirname(__file__), **where)]

    start, killed = time.monotonic(), 0
    subprocess.run(command("whole"), check=True)
    usual = time.monotonic() - start
    for moment in np.random.default_rng(0).uniform(0.4, 1, 5) * usual:
        process = subprocess.Popen(command("killed"))
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed
    subprocess.run(command("killed"), check=True)
    left = {k: v for k, v in files(tmp_path / "killed").items() if not k.name.endswith(".__lock")}
    assert left == files(tmp_path / "whole")


@pytest.mark.slow
def test_eight_devices_and_two_processes(folder, whole, tmp_path):
    script = f"""
import os, sys
dump = {str(tmp_path)!r} + f".hlo{{os.environ['JAX_PROCESS_ID']}}"
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count=8 --xla_dump_to={{dump}} --xla_dump_hlo_as_text"
)
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is taken from it is not dumped
sys.path[:0] = [{os.path.dirname(__file__)!r}]
from pathlib import Path
import jax
from jaxattr.runner.devices import connect
connect()
from test_explanations import JOB, run
folder, out = Path({str(folder)!r}), Path({str(tmp_path)!r})
print(run(folder, out, JOB._replace(batch=8)).examples)
assert (jax.process_count(), len(jax.local_devices())) == (2, 8)
steps = [p.read_text() for p in Path(dump).glob("*explained*after_optimizations.txt")]
assert len(steps) == len(JOB.methods), "a program for each method"
assert not any("all-gather" in step for step in steps), "the batch is gathered"
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    parts = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **together, "JAX_PROCESS_ID": str(i)},
        )
        for i in range(2)
    ]
    assert [int(p.communicate()[0]) for p in parts] == [8, 3]
    ours, theirs = (
        open_store(o).open_array("maps/saliency").read().result() for o in (tmp_path, whole[0])
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert json.loads((tmp_path / "zarr.json").read_text())["attributes"]["batch"] == 8
