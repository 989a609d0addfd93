"""VGG-16 and ResNet-50 of VOC and COCO from files with the published keys, against torch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxattr.models import blocks, caffe
from jaxattr.models.loading import skeleton
from weights_conversion import convert


def weights(model, caffe_key):
    """Draw weights under the names of the published file."""
    rng = np.random.default_rng(0)
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        *parents, last = map(str, path)
        shape = variable.shape
        if last == "kernel":
            shape = (*shape[:-3:-1], *shape[:-2])
            value = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        elif last in ("var", "scale"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        found[caffe_key(".".join(parents), last)] = value.astype(np.float32)
    return found


def vgg_key(layer, last):
    return f"{layer}.{'weight' if last == 'kernel' else last}"


def resnet_key(layer, last):
    half = {"mean": "0.running_mean", "var": "0.running_var", "scale": "1.weight", "bias": "1.bias"}
    is_norm = re.search(r"bn\d$|downsample\.1$", layer)
    name = half[last] if is_norm else {"kernel": "weight"}.get(last, last)
    return f"{layer}.{name}"


def torch_vgg(functional, tensors):
    order = sorted(int(k.split(".")[1]) for k in tensors if re.match(r"features.*weight", k))

    def forward(x):
        at = 0
        for repeats in (2, 2, 3, 3, 3):
            for _ in range(repeats):
                w, b = (tensors[f"features.{order[at]}.{k}"] for k in ("weight", "bias"))
                x = functional.conv2d(x, w[:, [2, 1, 0]] if at == 0 else w, b, padding=1).relu()
                at += 1
            x = functional.max_pool2d(x, 2, ceil_mode=True)
        for i in (0, 2, 4):
            x = functional.conv2d(x, *(tensors[f"classifier.{i}.{k}"] for k in ("weight", "bias")))
            x = x.relu() if i < 4 else x
        return x

    return forward


def torch_resnet(functional, tensors):
    def norm(x, name):
        mean, var = (tensors[f"{name}.0.running_{k}"] for k in ("mean", "var"))
        scale, bias = (tensors[f"{name}.1.{k}"] for k in ("weight", "bias"))
        return functional.batch_norm(x, mean, var, scale, bias)

    def normed(x, block, number, **options):
        kernel = tensors[f"{block}.conv{number}.weight"]
        return norm(functional.conv2d(x, kernel, **options), f"{block}.bn{number}")

    def block(x, name, stride, first):
        y = normed(x, name, 1, stride=stride).relu()
        y = normed(normed(y, name, 2, padding=1).relu(), name, 3)
        if first:
            kernel = tensors[f"{name}.downsample.0.weight"]
            x = norm(functional.conv2d(x, kernel, stride=stride), f"{name}.downsample.1")
        return (x + y).relu()

    def forward(x):
        w = tensors["conv1.weight"][:, [2, 1, 0]]
        x = norm(functional.conv2d(x, w, tensors["conv1.bias"], stride=2, padding=3), "bn1").relu()
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        for stage, number in enumerate((3, 4, 6, 3), start=1):
            for i in range(number):
                x = block(x, f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1, i == 0)
        x = functional.avg_pool2d(x, 7, 1)
        return functional.conv2d(x, tensors["fc.weight"][..., None, None], tensors["fc.bias"])

    return forward


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16_voc07", "resnet50_coco14"])
def test_logits_are_torchs(name):
    torch = pytest.importorskip("torch")
    model = skeleton(name)
    state = weights(model, vgg_key if name.startswith("vgg") else resnet_key)
    nnx.update(model, convert(state, model, rename=model.torch.rename))
    tensors = {k: torch.from_numpy(v) for k, v in state.items()}
    functional = torch.nn.functional
    if name.startswith("vgg"):
        forward = torch_vgg(functional, tensors)
    else:
        forward = torch_resnet(functional, tensors)
    classes = 20 if "voc" in name else 80
    for shape, positions in (((224, 224), (1, 1)), ((224, 298), (1, 4))):
        x = 30 * np.random.default_rng(1).standard_normal((1, *shape, 3), np.float32)
        maps = jax.jit(lambda m, x: blocks.through(m, x, *m.parts.features, *m.parts.pooling))
        head = model.parts.head[0]
        ours = blocks.through(model, maps(model, x), head)
        with torch.no_grad():
            theirs = forward(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
        assert ours.shape == (1, *positions, classes)
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), atol=1e-4 * scale)
        joined = blocks.through(model, ours, model.parts.head[1])
        np.testing.assert_allclose(joined, np.logaddexp.reduce(theirs, (2, 3)), atol=1e-4 * scale)


def test_the_gradient_of_joined_positions_is_their_softmax():
    logits = jnp.array([[[[1.0, 2.0], [3.0, -1.0]]]])
    grads = jax.grad(lambda v: caffe.join_positions(v)[0, 1])(logits)
    np.testing.assert_allclose(grads[0, 0, :, 1], jax.nn.softmax(logits[0, 0, :, 1]), rtol=1e-6)
    assert not grads[..., 0].any()


@pytest.mark.parametrize("length", [112, 149, 75, 113, 4, 3])
@pytest.mark.parametrize(("size", "padding"), [(2, 0), (3, 0), (3, 1)])
def test_pools_that_round_up_are_torchs(length, size, padding):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((1, length, 5, 2), np.float32)
    ours = blocks.max_pool(x, size=size, stride=2, padding=padding, ceil=True)
    theirs = torch.nn.functional.max_pool2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), size, 2, padding, ceil_mode=True
    )
    np.testing.assert_array_equal(ours, theirs.numpy().transpose(0, 2, 3, 1))
