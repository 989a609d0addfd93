"""Class activation maps that differ in how channels are weighted: peers' arrays and laws."""

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
from jaxattr.image.resize import resize

PEERS = peer("cams")
SIGNED = {
    "hires_cam": partial(jaxattr.hires_cam, relu=False),
    "xgrad_cam": partial(jaxattr.xgrad_cam, relu=False),
    "eigen_cam": partial(jaxattr.eigen_cam, center=True, relu=False),
    "eigen_grad_cam": partial(jaxattr.eigen_grad_cam, center=True, relu=False),
    "finer_cam": partial(jaxattr.finer_cam, relu=False),
}
POSITIVE = {"layer_cam": jaxattr.layer_cam, "ablation_cam": jaxattr.ablation_cam}
ROUNDED = dict.fromkeys(("eigen_cam", "eigen_grad_cam", "xgrad_cam", "finer_cam"), 1e-6)
ROUNDED["ablation_cam"] = 1e-5


@pytest.mark.parametrize(
    ("name", "layer"),
    mostly_slow([("vgg", "relu2"), ("vgg", "relu3"), ("lite", "act3")], [("lite", "act3")]),
)
def test_against_pytorch_grad_cam(name, layer):
    """What it adds to denominators, or rounds to float32, sets the tolerance."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        explain = {key: make(f, layer=layer) for key, make in (SIGNED | POSITIVE).items()}
        found = jax.jit(lambda x, t: {key: a(x, t) for key, a in explain.items()})(
            x[:2], target[:2]
        )
        for key, ours in found.items():
            theirs = PEERS[f"{name}.{layer}.{key}"]
            theirs = theirs if key in SIGNED else np.maximum(theirs, 0)
            theirs = np.asarray(resize(jnp.asarray(theirs), x.shape[1:3]))
            if key.startswith("eigen"):  # the sign is theirs by chance
                theirs = theirs * np.sign((theirs * ours).sum((1, 2, 3), keepdims=True))
            assert relative_error(ours, theirs) < ROUNDED.get(key, 1e-9), key


def test_shapley_cam_against_pytorch_grad_cam():
    with enable_x64(True):
        _, params, x, _ = load("vgg", "float64")
        weight = jnp.asarray(PEERS["square.weight"])
        bias = params["conv1.bias"]

        def f(x):
            numbers = ("NHWC", "OIHW", "NHWC")
            kernel = params["conv1.weight"]
            h = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            with jax.named_scope("relu1"):
                h = jax.nn.relu(h + bias)
            return (h**2).mean((1, 2)) @ weight

        explain = jax.jit(jaxattr.shapley_cam(f, layer="relu1", relu=False))
        found = explain(x[:2], jnp.array([2, 0]))
    assert relative_error(found, PEERS["square.shapley_cam"]) < 1e-9


def affine(x):
    """Return a layer of 3 x 4 positions and 2 channels, and one affine layer behind it."""
    with jax.named_scope("layer"):
        h = jax.nn.relu(x * 2 + 1)
    return h.reshape(len(x), -1) @ WEIGHT + 3


WEIGHT = jax.random.normal(jax.random.key(0), (24, 3))
X, TARGET = jax.random.normal(jax.random.key(1), (2, 3, 4, 2)), jnp.array([0, 2])


def test_where_one_affine_layer_follows():
    """HiResCAM and XGrad-CAM sum to the logit without its bias; ablation finds the same weights."""
    methods = [
        jaxattr.hires_cam(affine, layer="layer", relu=False),
        jaxattr.xgrad_cam(affine, layer="layer", relu=False),
        jaxattr.ablation_cam(affine, layer="layer"),
        jaxattr.shapley_cam(affine, layer="layer"),
        jaxattr.grad_cam(affine, layer="layer"),
    ]
    hires, xgrad, ablation, shapley, plain_cam = jax.jit(lambda x, t: [m(x, t) for m in methods])(
        X, TARGET
    )
    logits = np.asarray(affine(X))[np.arange(2), TARGET] - 3
    value = np.asarray(jax.nn.relu(X * 2 + 1))
    terms = value * np.asarray(WEIGHT).T[TARGET].reshape(2, 3, 4, 2)
    np.testing.assert_allclose(hires.sum((1, 2, 3)), logits, rtol=1e-5)
    np.testing.assert_allclose(xgrad.sum((1, 2, 3)), logits, rtol=1e-5)
    weighted = (terms.sum((1, 2), keepdims=True) * value).sum(-1, keepdims=True)
    np.testing.assert_allclose(ablation, np.maximum(weighted, 0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shapley, plain_cam, rtol=1e-6)


def test_what_follows_a_pool_and_a_dense_layer_alone():
    """There LayerCAM drops nothing but negative weights, and HiRes-, XGrad- and Grad-CAM agree."""

    def f(x):
        with jax.named_scope("layer"):
            h = jax.nn.relu(x)
        return h.mean((1, 2)) @ jnp.array([[1.0, -2.0], [-0.5, 3.0]])

    names = ("grad_cam", "hires_cam", "xgrad_cam", "layer_cam")
    methods = [getattr(jaxattr, name)(f, layer="layer") for name in names]
    target = jnp.array([0, 1])
    first, *others = jax.jit(lambda x, t: [m(x, t) for m in methods])(X, target)
    for other in others[:2]:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-7)
    weights = np.array([[1.0, 0.0], [0.0, 3.0]]) / 12
    expected = (np.maximum(X, 0) * weights[:, None, None]).sum(-1, keepdims=True)
    np.testing.assert_allclose(others[2], expected, rtol=1e-5)


def test_a_quadratic_score_and_shapley_cam():
    """Where positions of a channel are equal, it sums to what the layer adds to the score."""
    q = jnp.array([[2.0, 1.0], [1.0, -3.0]])

    def f(x):
        with jax.named_scope("layer"):
            h = 2 * x
        pooled = h.sum((1, 2))
        return (pooled @ q * pooled).sum(-1, keepdims=True) + pooled @ jnp.array([[1.0], [5.0]]) + 7

    x = jnp.broadcast_to(jnp.array([0.3, -0.2]), (1, 2, 3, 2))
    found = jaxattr.shapley_cam(f, layer="layer", relu=False)(x, jnp.array([0]))
    np.testing.assert_allclose(found.sum(), f(x)[0, 0] - 7, rtol=1e-5)


def test_eigen_cam_of_what_is_not_negative():
    value = np.abs(np.asarray(X))
    found = jaxattr.eigen_cam(lambda x: jnp.sin(x).mean((1, 2)) @ jnp.ones((2, 1)), layer="sin")
    with pytest.raises(ValueError, match="layer 'sin' is unknown"):
        found(X, jnp.zeros(2, int))

    def f(x):
        with jax.named_scope("layer"):
            h = jnp.abs(x)
        return h.mean((1, 2)) @ jnp.ones((2, 1))

    maps = jaxattr.eigen_cam(f, layer="layer", relu=False)(X, jnp.zeros(2, int))
    assert maps.min() > 0
    rows = value.reshape(2, 12, 2)
    largest = np.linalg.eigvalsh(np.swapaxes(rows, 1, 2) @ rows)[:, -1]
    np.testing.assert_allclose((maps**2).sum((1, 2, 3)), largest, rtol=1e-5)


def test_finer_cam_and_its_classes():
    f = lambda x: affine(x)[:, :2]
    given = {"layer": "layer", "relu": False}
    both = lambda w: lambda x: affine(x)[:, :2] @ jnp.array([[1.0], [w]])
    found = [
        jaxattr.finer_cam(f, alpha=0.0, **given),
        jaxattr.grad_cam(f, **given),
        jaxattr.finer_cam(f, alpha=0.7, **given),
        jaxattr.grad_cam(both(-0.7), **given),
    ]
    zero = jnp.zeros(2, int)
    plain_finer, plain_cam, finer, difference = jax.jit(lambda x, t: [m(x, t) for m in found])(
        X, zero
    )
    np.testing.assert_allclose(plain_finer, plain_cam, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(finer, difference, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="one logit has no other class"):
        jaxattr.finer_cam(both(1), **given)(X, zero)
    with pytest.raises(ValueError, match="classes is 0"):
        jaxattr.finer_cam(f, classes=0)


@pytest.mark.slow
def test_tokens_become_their_grid():
    """The map of a transformer is drawn on its patches; how they lie may be given."""
    methods = [jaxattr.hires_cam, jaxattr.eigen_cam, jaxattr.ablation_cam]
    with enable_x64(True):
        x, target = images(), jnp.array([1, 3])
        maps = lambda grid: lambda x, t: [m(vit(), grid=grid)(x, t) for m in methods]
        pairs = zip(*(jax.jit(maps(grid))(x, target) for grid in (None, (2, 8))), strict=True)
    for ours, other in pairs:
        assert ours.shape == (2, 8, 8, 1)
        assert np.abs(ours).max() > 0
        assert np.abs(other - ours).max() > 0
