"""The table of published weights, and loading from it."""

import re
import threading
from functools import cache, partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file
from torchvision_definitions import random_model

import jaxattr.models
from jaxattr import models
from jaxattr.models import PUBLISHED, published
from weights_conversion import CheckpointError, cache_directory

torchvision_entries = [entry for entry in PUBLISHED if "pytorch.org" in entry.url]
forward = jax.jit(lambda model, x: model(x))
skeleton = cache(models.skeleton)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Keep downloads and converted weights out of the user's cache."""
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path):
    """Write a small checkpoint, named after its hash, and return its path and its arrays."""
    skeleton = models.skeleton("cifar_resnet20")
    random = np.random.RandomState(0)
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    arrays = {}
    for path, variable in nnx.to_flat_state(nnx.state(skeleton)):
        *parents, last = map(str, path)
        shape = variable.shape
        turned = (*shape[:-3:-1], *shape[:-2]) if last == "kernel" else shape
        key = ".".join([*parents, names.get(last, last)])
        arrays[key] = random.uniform(0.01, 0.2, turned).astype(np.float32)
    draft = tmp_path / "draft"
    save_file(arrays, draft)
    digest = sha256(draft.read_bytes()).hexdigest()
    return draft.rename(tmp_path / f"resnet20-{digest[:8]}.th"), arrays


# The table.


AUXILIARY = {"inception_v3": (3_326_696, 3_328_488), "googlenet": (0, 6_380_496)}
"""Weights of the classifiers that training alone needs: those published as parameters, all."""


def some(entries):
    """Return the entries, all but the smallest model of each file marked as slow."""
    models = {e.model: e for e in sorted(entries, key=lambda e: -e.parameters)}
    smallest = {getattr(jaxattr.models, m).__module__: e for m, e in models.items()}
    marks = {True: (), False: pytest.mark.slow}
    return [
        pytest.param(e, id=f"{e.model}-{e.weights}", marks=marks[e in smallest.values()])
        for e in entries
    ]


@pytest.mark.parametrize("entry", some(PUBLISHED))
def test_every_entry_is_well_formed(entry):
    assert entry.model in models.names()
    if entry.package is None:
        assert re.fullmatch(r"https://\S+/[\w-]+-[0-9a-f]{8}\.p?th(\.tar)?", entry.url)
        assert re.fullmatch("[0-9a-f]{8}", entry.sha256)
    assert entry.top1 is None or 50 < entry.top1 < (entry.top5 or 100)
    number = {"cifar": 10, "voc07": 20, "coco14": 80}
    wanted = next((n for part, n in number.items() if part in entry.model), 1000)
    assert len(entry.classes) == len(set(entry.classes)) == wanted
    model = skeleton(entry.model)
    count = sum(prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    counted, stored = AUXILIARY.get(entry.model, (0, 0))
    assert count == entry.parameters - counted
    statistics = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
    values = count + stored + sum(prod(leaf.shape) for leaf in statistics)
    half = entry.model.startswith("wide") and entry.weights.endswith("V1")
    size = values * (2 if half else 4) / 2**20
    assert entry.mebibytes == pytest.approx(size, rel=0.1 if count < 1e6 else 0.02)


def test_every_model_has_weights_and_every_name_is_unique():
    entries = (*PUBLISHED, *models.TO_TRAIN)
    assert {entry.model for entry in entries} == set(models.names())
    assert len({(entry.model, entry.weights) for entry in entries}) == len(entries)


@pytest.mark.parametrize("entry", torchvision_entries, ids=lambda entry: entry.filename)
def test_numbers_are_torchvisions(torchvision, entry):
    weights = torchvision.models.get_model_weights(entry.model)[entry.weights]
    metrics = weights.meta["_metrics"]["ImageNet-1K"]
    assert entry.url == weights.url
    assert entry.classes == tuple(weights.meta["categories"])
    assert (entry.top1, entry.top5) == (metrics["acc@1"], metrics["acc@5"])
    assert entry.parameters == weights.meta["num_params"]
    assert entry.mebibytes == weights.meta["_file_size"]


def test_all_of_torchvisions_weights_for_these_models_are_there(torchvision):
    get = torchvision.models.get_model_weights
    names = {entry.model for entry in torchvision_entries}
    wanted = {(name, w.name) for name in names for w in get(name)}
    found = {(entry.model, entry.weights) for entry in torchvision_entries}
    without_classifier = {("vgg16", "IMAGENET1K_FEATURES")}
    for_larger_images = {(f"vit_{size}_16", "IMAGENET1K_SWAG_E2E_V1") for size in "bl"}
    assert wanted - found == without_classifier | for_larger_images
    assert all(published.find(name).weights == get(name).DEFAULT.name for name in names)


def test_find():
    assert published.find("resnet50").weights == "IMAGENET1K_V2"
    assert published.find("resnet50", "DEFAULT").weights == "IMAGENET1K_V2"
    assert published.find("resnet50", "IMAGENET1K_V1").preprocess.resize_size == 256
    by_file = partial(published.find, "resnet50")
    assert by_file(file="resnet50-11ad3fa6.pth").weights == "IMAGENET1K_V2"
    assert by_file(file="mine.pth").weights == "IMAGENET1K_V1"
    with pytest.raises(ValueError, match="'V3'; it has IMAGENET1K_V1, IMAGENET1K_V2"):
        by_file("V3")


# Loading.


def serve(folder):
    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder))


def test_load_downloads_once_and_converts_once(checkpoint, monkeypatch):
    path, arrays = checkpoint
    server = serve(path.parent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        entry = published.find("cifar_resnet20")._replace(url=url)
        monkeypatch.setattr(published, "PUBLISHED", (entry,))
        assert published.local_path(entry) is None
        model, preprocess, classes = models.load("cifar_resnet20")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert published.local_path(entry) == cache_directory() / "downloads" / path.name
    again = models.load("cifar_resnet20").model  # the server is gone
    for loaded in (model, again):
        bias = arrays["linear.bias"]
        np.testing.assert_array_equal(loaded.linear.bias[...], bias)
        kernel = arrays["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(loaded.layer1[0].conv1.kernel[...], kernel)
    assert classes[3] == "cat"
    image = Image.new("RGB", (40, 50), (200, 100, 0))
    assert forward(model, preprocess(image)[None]).shape == (1, 10)


def test_load_without_network_says_what_to_do(monkeypatch):
    monkeypatch.setenv("JAXATTR_OFFLINE", "1")
    with pytest.raises(OSError, match=r"resnet18-f37072fd.pth .* https://download.pytorch.org/"):
        models.load("resnet18")


def test_load_takes_a_file_by_path(checkpoint):
    path, _ = checkpoint
    model = models.load("cifar_resnet20", path=path, dtype=jnp.bfloat16).model
    assert model.linear.bias[...].dtype == jnp.bfloat16
    assert model.bn1.mean[...].dtype == jnp.float32
    names = [f"animal {i}" for i in range(10)]
    assert models.load("cifar_resnet20", path=path, classes=names).classes == tuple(names)
    with pytest.raises(ValueError, match="has 10 classes, but `classes` has 2 names"):
        models.load("cifar_resnet20", path=path, classes=names[:2])
    said = r"97 of the model's 157 arrays do\n  missing: layer1\.3\.bn1\.bias"
    with pytest.raises(CheckpointError, match=said):
        models.load("cifar_resnet32", path=path)


@pytest.mark.slow
def test_load_takes_torchs_files_with_other_classes(torch, torchvision, tmp_path):
    reference = random_model(torchvision, "resnet18", num_classes=7)
    path = tmp_path / "mine.pth"
    torch.save({"epoch": 3, "state_dict": reference.state_dict()}, path)
    model, preprocess, classes = models.load("resnet18", path=path)
    assert classes == ("0", "1", "2", "3", "4", "5", "6")
    x = preprocess(Image.effect_mandelbrot((300, 260), (-2, -1, 1, 1), 50))
    with torch.inference_mode():
        expected = reference(torch.from_numpy(x.transpose(2, 0, 1)[None].copy())).numpy()
    np.testing.assert_allclose(forward(model, x[None]), expected, rtol=0, atol=1e-4)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(published, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "jaxattr[demo]"')):
        models.load("efficientnet_lite0")
    with pytest.raises(ModuleNotFoundError, match='pip install "efficientnet_lite3_pytorch_model"'):
        models.load("efficientnet_lite3")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"no model 'resnet_50'; did you mean resnet50"):
        models.load("resnet_50")
    with pytest.raises(ValueError, match=r"did you mean efficientnet_lite0, .*, cifar_resnet56"):
        models.load("transformer")
