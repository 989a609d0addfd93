"""Excitation backprop: TorchRay's maps, a dense reference, and what a probability obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modern import images, vit
from nets import RELUS, load, plain
from peers import peer, relative_error
from precision import enable_x64
from relative_nets import EVERY, case
from speed import mostly_slow

import jaxattr
from jaxattr.facts import facts_of
from jaxattr.image import maps
from jaxattr.methods import excitation_backprop as excitation
from jaxattr.methods.contrastive_excitation_backprop import CONTRASTIVE, contrast
from jaxattr.methods.excitation_backprop import EXCITATION
from jaxattr.rules.contributions import affine
from jaxattr.tracing.taps import split

OTHERS = ("clip(z, 0)", "where(z > 0, z, 0)")


METHODS = [jaxattr.excitation_backprop, jaxattr.contrastive_excitation_backprop]
KINDS = ("excitation", "contrastive")
ARRAYS = [
    (name, array)
    for name in ("vgg", "resnet")
    for array in peer(f"relevance_{name}")
    if array.startswith(KINDS)
]
CONTRASTS = (".relu4", ".layer2.relu2")
"""Where TorchRay's contrast was taken; it makes no difference."""


@pytest.mark.parametrize(("name", "array"), mostly_slow(ARRAYS, ARRAYS[::5]))
def test_torchray(name, array):
    kind, layer = array.split(".", 1)
    contrastive = kind == "contrastive"
    for suffix in CONTRASTS if contrastive else ():
        layer = layer.removesuffix(suffix)
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f, x, target = plain(net, params), x[:2], target[:2]
        composite = CONTRASTIVE if contrastive else EXCITATION
        relevance = jax.jit(
            lambda x, t: excitation.relevance_at(split(f, x, layer=layer), composite, x, t)
        )(x, target)
    a = np.asarray(relevance).sum(-1, keepdims=True)
    theirs = peer(f"relevance_{name}")[array]
    assert relative_error(np.maximum(a, 0) if contrastive else a, theirs) < 1e-12


def test_contrast_is_what_excites_less_what_inhibits():
    """The dense reference: shares of positive and of negative contributions."""
    with enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        w, b = jax.random.normal(keys[0], (7, 4)), jax.random.normal(keys[1], (4,))
        x, r = jax.random.normal(keys[2], (2, 7)), jax.random.normal(keys[3], (2, 4))
        f = jaxattr.with_rules(lambda x: x @ w + b, {"affine": affine(contrast)})
        (down,) = jax.vjp(f, x)[1](r)
    z = np.asarray(x)[:, :, None] * np.asarray(w)
    up, low = np.maximum(z, 0), np.minimum(z, 0)
    shares = up / up.sum(1, keepdims=True) - low / low.sum(1, keepdims=True)
    np.testing.assert_allclose(down, (shares * np.asarray(r)[:, None]).sum(-1), rtol=1e-9)


def test_dense_reference():
    """Two layers and a max-pool, by matrices."""
    with enable_x64(True):
        keys = jax.random.split(jax.random.key(1), 3)
        w1, w2 = jax.random.normal(keys[0], (12, 8)), jax.random.normal(keys[1], (4, 3))
        x = jax.random.normal(keys[2], (1, 2, 2, 3))
        f = lambda x: jax.nn.relu(x.reshape(1, 12) @ w1).reshape(1, 4, 2).max(-1) @ w2
        a = jax.jit(excitation.excitation_backprop(f))(x, jnp.array([2]))
    z1 = np.asarray(x).reshape(12, 1) * np.asarray(w1)
    hidden = np.maximum(z1.sum(0), 0).reshape(4, 2)
    z2 = np.maximum(hidden.max(1)[:, None] * np.asarray(w2), 0)[:, 2]
    top = np.zeros((4, 2))
    top[np.arange(4), hidden.argmax(1)] = z2 / z2.sum()
    up = np.maximum(z1, 0)
    np.testing.assert_allclose(a.ravel(), (up / up.sum(0)) @ top.ravel(), rtol=1e-9)


def test_a_probability_and_a_contrast():
    """Without residual sums nothing is negative and all is 1; the contrast is 0 in all."""
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        f = plain(net, params)
        found = jax.device_get(jax.jit(jaxattr.excitation_backprop_details(f))(x, target))
        opposed = jax.jit(jaxattr.contrastive_excitation_backprop(f))(x, target)
    for name, p in {**found.layers, "x": found.attribution}.items():
        assert p.min() >= 0, name
        np.testing.assert_allclose(p.reshape(3, -1).sum(1), 1, rtol=1e-8, err_msg=name)
    contrast = np.asarray(opposed)
    np.testing.assert_allclose(contrast.sum((1, 2, 3)), 0, atol=1e-10)
    assert np.abs(contrast).max() > 1e-3


def test_attention_gives_a_probability():
    """Nothing is negative, only a winner that nothing excites keeps its share; a contrast is 0."""
    with enable_x64(True):
        f, x, target = vit(token=False, blocks=1, act=jax.nn.silu), images(), jnp.array([1, 3])
        methods = jaxattr.excitation_backprop(f), jaxattr.contrastive_excitation_backprop(f)
        a, b = jax.device_get(jax.jit(lambda x: [m(x, target) for m in methods])(x))
    assert a.min() >= 0
    assert np.all(a.sum((1, 2, 3)) > 0.99)
    assert np.all(a.sum((1, 2, 3)) < 1 + 1e-9)
    assert np.all(np.abs(b.sum((1, 2, 3))) < 0.01)
    assert np.abs(b).max() > 1e-3


@pytest.mark.parametrize("method", mostly_slow(METHODS, METHODS[1:]))
def test_layers_and_the_image(method):
    """A layer's map is its relevance summed over channels and resized."""
    details = facts_of(method).details
    net, params, x, target = load("resnet")
    f = plain(net, params)
    whole = jax.jit(details(f))(x, target)
    a = jax.jit(method(f))(x, target)
    small = jax.jit(method(f, layer="layer1"))(x, target)
    inside = jax.jit(method(f, layer="layer1/relu1"))(x, target)
    assert relative_error(whole.attribution, a) < 1e-6
    for name, got in (("layer1/relu2/relu", small), ("layer1/relu1/relu", inside)):
        at_layer = whole.layers[name].sum(-1, keepdims=True)
        wanted = maps.resize(at_layer, (x.shape[1], x.shape[2]))
        assert got.shape == (*x.shape[:3], 1)
        assert relative_error(got, wanted) < 1e-5
    down_to = jax.jit(details(f, layer="layer1"))(x, target)
    assert relative_error(down_to.attribution, small) < 1e-6
    assert list(down_to.layers) == list(whole.layers)[: len(down_to.layers)]
    for name, relevance in down_to.layers.items():
        assert relative_error(relevance, whole.layers[name]) < 1e-5, name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", mostly_slow(EVERY, ["resnet"]))
def test_every_net(name, method):
    with enable_x64(True):
        f, x, target = case(name)
        a = jax.jit(method(f))(x, target)
    assert a.shape == x.shape
    assert np.isfinite(a).all()
    assert np.abs(a).max() > 1e-4


@pytest.mark.parametrize("method", mostly_slow(METHODS, []))
def test_every_spelling_of_relu(method):
    net, params, x, target = load("vgg")
    first, *others = (
        jax.jit(method(plain(net, params, relu=r)))(x, target) for r in RELUS.values()
    )
    for other in others:
        assert relative_error(other, first) < 1e-5


def test_what_has_no_rule_is_refused():
    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    w = jnp.ones((3, 2))
    for f, message in {
        lambda x: jax.nn.softmax(x.mean((1, 2)) @ w): "logits rather than probabilities",
        lambda x: (x.mean((1, 2)) * (x.mean((1, 2)) @ w @ w.T)) @ w: "`mul`",
        lambda x: jnp.cumprod(x.mean((1, 2)), 1) @ w: "`cumprod`",
    }.items():
        for method in METHODS:
            with pytest.raises(jaxattr.UnsupportedOperation, match=message):
                method(f)(x, target)


def test_a_layer_that_is_unknown_or_has_no_positions():
    net, params, x, target = load("vgg")
    for method in METHODS:
        with pytest.raises(ValueError, match=r"layer 'relu9' is unknown; did you mean relu"):
            jax.eval_shape(method(plain(net, params), layer="relu9"), x, target)
        with pytest.raises(ValueError, match=r"layer 'fc1' has shape \(3, 20\)"):
            jax.eval_shape(method(plain(net, params), layer="fc1"), x, target)
