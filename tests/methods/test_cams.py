"""Grad-CAM++, Score-CAM and CAMERAS: definitions written out, other libraries' arrays, memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modern import images, vit
from nets import load, plain
from peers import peer, relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.image import maps
from jaxattr.image.resize import resize
from jaxattr.methods.grad_cam_plus_plus import plus_plus_weights
from jaxattr.methods.layers import at_layer
from jaxattr.scores import probability
from jaxattr.tracing.taps import split

LAYERS = {"vgg": ("relu2", "relu3"), "resnet": ("layer1", "layer2"), "lite": ("act1", "act3")}
PERTURBATIONS, CAMERAS = peer("perturbations"), peer("cameras")
PLACES = [(name, layer) for name, layers in LAYERS.items() for layer in layers]
every_layer = pytest.mark.parametrize(("name", "layer"), mostly_slow(PLACES, PLACES[::3]))


def read(f, x, target, layer):
    return jax.jit(lambda x, target: at_layer(f, x, target, layer))(x, target)


@every_layer
def test_grad_cam_plus_plus_against_pytorch_grad_cam(name, layer):
    """Its weights with its 1e-6 in the denominator."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")

        @jax.jit
        def both(x, target):
            channels = at_layer(plain(net, params), x, target, layer)
            weights = plus_plus_weights(*channels, epsilon=1e-6)
            return weights, jnp.einsum("bc,bhwc->bhw", weights, channels.value)

        weights, cam = jax.device_get(both(x[:2], target[:2]))
        assert relative_error(weights, PERTURBATIONS[f"{name}.grad_cam_plus_plus.{layer}"]) < 1e-12
        cam = np.maximum(cam, 0)[..., None]
        theirs = PERTURBATIONS[f"{name}.grad_cam_plus_plus.{layer}.map"]
        assert relative_error(cam, theirs) < 1e-12


def test_grad_cam_plus_plus_by_higher_derivatives():
    """The paper's eq. 19 as it stands, derivatives of `exp(y)` to third order by JAX."""
    with enable_x64(True):
        value = jax.random.uniform(jax.random.key(0), (3, 4, 2))
        weight = jax.random.normal(jax.random.key(1), (3, 4, 2))
        y = lambda v: jnp.exp((weight * v).sum())
        first = np.asarray(jax.jit(jax.grad(y))(value))

        def along(i, order):
            """Differentiate `y` several times with respect to one entry."""
            f = lambda s: y(value.ravel().at[i].add(s).reshape(value.shape))
            for _ in range(order):
                f = jax.grad(f)
            return f(0.0)

        second, third = (
            np.asarray(jax.jit(jax.vmap(partial(along, order=k)))(jnp.arange(value.size)))
            for k in (2, 3)
        )
        second, third = second.reshape(value.shape), third.reshape(value.shape)
        alpha = second / (2 * second + np.asarray(value).sum((0, 1)) * third)
        expected = (alpha * np.maximum(first, 0)).sum((0, 1)) / float(y(value))
        weights = plus_plus_weights(value[None], weight[None])[0]
        np.testing.assert_allclose(weights, expected, rtol=1e-9)


def test_grad_cam_plus_plus_map():
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        f = plain(net, params)
        value, gradient = read(f, x, target, "relu3")
        cam = jnp.einsum("bc,bhwc->bhw", plus_plus_weights(value, gradient), value)[..., None]
        expected = maps.resize(jnp.maximum(cam, 0), x.shape[1:3])
        found = jax.jit(jaxattr.grad_cam_plus_plus(f, layer="relu3"))(x, target)
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("unit", [7.0, 0.01])
def test_the_unit_of_a_layer_does_not_show(unit):
    """A layer that is divided by a number, and multiplied by it later, gives the same map."""

    def network(unit):
        def f(x):
            with jax.named_scope("layer"):
                h = jax.nn.relu(x) / unit
            return (h * unit).mean((1, 2)) ** 2 @ jnp.array([[1.0, -1.0], [0.5, 2.0], [1.0, 0.0]])

        return f

    x, target = jax.random.normal(jax.random.key(0), (2, 5, 5, 3)), jnp.array([0, 1])
    for method in (jaxattr.grad_cam, jaxattr.grad_cam_plus_plus):
        attribute = [jax.jit(method(network(u), layer="layer")) for u in (1.0, unit)]
        one, other = (a(x, target) for a in attribute)
        assert relative_error(other, one) < 1e-5


@every_layer
def test_score_cam_against_pytorch_grad_cam(name, layer):
    """Its scores are rounded to float32."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        explain = jaxattr.score_cam(f, layer=layer, enlarge=maps.resize_aligned, chunk=5)
        found = jax.jit(explain)(x[:2], target[:2])
        theirs = jnp.asarray(PERTURBATIONS[f"{name}.score_cam.{layer}.map"])
        assert relative_error(found, maps.resize_aligned(theirs, x.shape[1:3])) < 1e-5


@pytest.mark.parametrize("score", mostly_slow([None, probability], [probability]))
def test_score_cam_channel_by_channel(score):
    options = {} if score is None else {"score": score}
    with enable_x64(True):
        net, params, x, target = load("resnet", "float64")
        f = plain(net, params)
        found = jax.jit(jaxattr.score_cam(f, layer="layer1", **options))(x, target)
        value, f = read(f, x, target, "layer1").value, jax.jit(f)
        for i in range(len(x)):
            scores = []
            for c in range(value.shape[-1]):
                mask = maps.resize(value[i : i + 1, :, :, c], x.shape[1:3])
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                logits = f(x[i : i + 1] * mask[..., None])
                logits = jax.nn.softmax(logits) if score else logits
                scores.append(logits[0, target[i]])
            cam = value[i] @ jax.nn.softmax(jnp.stack(scores))
            expected = maps.resize(jnp.maximum(cam, 0)[None, ..., None], x.shape[1:3])
            assert relative_error(found[i : i + 1], expected) < 1e-10


def test_score_cam_takes_chunks_and_tells_of_them():
    net, params, x, target = load("vgg")
    told, found = [], []
    for chunk in (1, 5, 100):
        explain = jaxattr.score_cam(plain(net, params), chunk=chunk, progress=told.append)
        found.append(jax.jit(explain)(x, target))
        jax.effects_barrier()
        assert told[-1] == 16
    assert relative_error(found[1], found[0]) < 1e-5
    assert relative_error(found[2], found[0]) < 1e-5


def stacked(channels):
    """Return a network with a layer of so many channels, an eighth of the image in size."""
    kernel = jax.random.normal(jax.random.key(0), (8, 8, 3, channels))

    def f(x):
        with jax.named_scope("layer"):
            numbers = ("NHWC", "HWIO", "NHWC")
            h = jax.lax.conv_general_dilated(x, kernel, (8, 8), "SAME", dimension_numbers=numbers)
            h = jax.nn.relu(h)
        return h.mean((1, 2)) @ kernel[0, 0].T

    return f


@pytest.mark.parametrize("method", [jaxattr.score_cam, jaxattr.cameras])
def test_memory_follows_the_chunk_and_not_the_channels(method):
    """Four times the channels, or all at once."""
    options = {"scales": (1, 2)} if method is jaxattr.cameras else {}
    x, target = jnp.ones((1, 128, 128, 3)), jnp.zeros(1, int)

    def needed(channels, chunk):
        explain = jax.jit(method(stacked(channels), layer="layer", chunk=chunk, **options))
        return explain.lower(x, target).compile().memory_analysis().temp_size_in_bytes

    assert needed(64, 2) < 2 * needed(16, 2)
    assert needed(64, 64) > 4 * needed(64, 2)


@pytest.mark.parametrize("layer", mostly_slow(["layer1", "layer2"], ["layer2"]))
def test_cameras_against_the_authors_code(layer):
    with enable_x64(True):
        net, params, x, target = load("resnet", "float64")
        scales = CAMERAS["resolutions"] / 18
        explain = jaxattr.cameras(plain(net, params), layer=layer, scales=list(scales), chunk=3)
        found = maps.unit_range(jax.jit(explain)(x[:2, :18, :18], target[:2]))
        assert relative_error(found, CAMERAS[layer]) < 1e-12


def test_cameras_at_one_scale_is_value_times_gradient():
    with enable_x64(True):
        net, params, x, target = load("lite", "float64")
        f = plain(net, params)
        found = jax.jit(jaxattr.cameras(f, scales=(1,)))(x, target)
        large = [maps.resize(a, x.shape[1:3]) for a in read(f, x, target, None)]
        expected = jnp.maximum((large[0] * large[1]).sum(-1, keepdims=True), 0)
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize(
    "method",
    [jaxattr.grad_cam_plus_plus, jaxattr.score_cam, lambda f: jaxattr.cameras(f, scales=(1, 1.5))],
    ids=["grad_cam_plus_plus", "score_cam", "cameras"],
)
def test_memory_layout_does_not_show(method):
    """Channels first inside the network give the same map."""
    _, params, x, target = load("vgg")
    kernel = params["conv1.weight"]

    def network(x, inside):
        numbers = ("NHWC", "OIHW", inside)
        h = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        return jax.nn.relu(h).mean((2, 3) if inside == "NCHW" else (1, 2))

    first, last = (
        jax.jit(method(lambda x, inside=inside: network(x, inside)))(x, target)
        for inside in ("NCHW", "NHWC")
    )
    assert relative_error(first, last) < 1e-4


def test_errors():
    net, params, x, target = load("vgg")
    f = plain(net, params)
    for method in (jaxattr.grad_cam_plus_plus, jaxattr.score_cam):
        with pytest.raises(ValueError, match=r"layer 'fc1' has shape \(3, 20\)"):
            jax.eval_shape(method(f, layer="fc1"), x, target)
        with pytest.raises(ValueError, match="did you mean relu4"):
            jax.eval_shape(method(f, layer="relu5"), x, target)
    with pytest.raises(ValueError, match=r"cannot take images of 32x36.*global average pooling"):
        jax.eval_shape(jaxattr.cameras(f, scales=(2,)), x, target)
    with pytest.raises(ValueError, match=r"scales is \(1, 0\)"):
        jaxattr.cameras(f, scales=(1, 0))
    for method in (jaxattr.score_cam, jaxattr.cameras):
        with pytest.raises(ValueError, match="chunk is 0"):
            method(f, chunk=0)


@pytest.mark.parametrize("token", mostly_slow([True, False], [True]))
def test_tokens_become_their_grid(token):
    """The last block's, after its first norm, or its sum where tokens are averaged: by hand."""
    with enable_x64(True):
        x, target = images(), jnp.array([1, 3])
        f = vit(token=token)
        halves = split(f, x)
        value = jax.jit(halves.before)(x)
        assert value.shape == (2, 16 + token, 8)
        score = lambda v: halves.after(v, x)[jnp.arange(2), target].sum()
        gradient = jax.jit(jax.grad(score))(value)
        of_patches = lambda a: a[:, -16:].reshape(2, 4, 4, 8)
        v, g = of_patches(value), of_patches(gradient)
        cam = (g.mean((1, 2), keepdims=True) * v).sum(-1, keepdims=True)
        expected = resize(jnp.maximum(cam, 0), (8, 8))
        ours = jax.jit(jaxattr.grad_cam(f))(x, target)
        other = jax.jit(jaxattr.grad_cam(f, grid=(2, 8)))(x, target)
        with pytest.raises(ValueError, match="how they lie"):
            jax.eval_shape(jaxattr.grad_cam(f, grid=(5, 8)), x, target)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    assert np.abs(g).max() > 0
    assert np.abs(other - ours).max() > 0


@pytest.mark.parametrize(
    "method",
    [
        jaxattr.guided_grad_cam,
        partial(jaxattr.cameras, scales=(1, 2)),
        partial(jaxattr.excitation_backprop, layer="tokens"),
        partial(jaxattr.contrastive_excitation_backprop, layer="tokens"),
    ],
)
def test_tokens_lie_as_is_said(method):
    x, target = jnp.ones((2, 8, 8, 3)), jnp.array([1, 3])

    def f(x):
        with jax.named_scope("tokens"):
            patches = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3)
            y = jax.nn.relu(patches.mean((2, 4)).reshape(len(x), -1, 3))
        return jnp.tile(y.mean(1), 2) @ jnp.ones((6, 4))

    assert jax.eval_shape(method(f, grid=(4, 4)), x, target).shape[:3] == (2, 8, 8)
    with pytest.raises(ValueError, match="how they lie"):
        jax.eval_shape(method(f, grid=(5, 8)), x, target)
