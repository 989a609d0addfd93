"""Relative attributing propagation: its authors' maps, a dense reference, and conservation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets import RELUS, load, plain
from peers import peer, relative_error
from precision import enable_x64
from relative_nets import EVERY, authors, case
from speed import mostly_slow

import jaxattr
from jaxattr.methods.rap import image_box, influence, relative
from jaxattr.rules.contributions import affine

OTHERS = ("clip(z, 0)", "where(z > 0, z, 0)")


KEYS = jax.random.split(jax.random.key(0), 4)


@pytest.mark.parametrize("name", ["vgg", "stack"])
def test_the_authors_code(name):
    with enable_x64(True):
        f, x, target = authors(name)
        a = jax.jit(jaxattr.rap(f))(x, target)
    assert relative_error(a, peer("relative")[f"{name}.rap"]) < 1e-12


@pytest.mark.parametrize("name", mostly_slow(EVERY, ["resnet"]))
def test_sums_to_the_logit(name):
    """With BatchNorm, residual sums, concatenation, average pools and bottlenecks of both signs."""
    with enable_x64(True):
        f, x, target = case(name)
        a = np.asarray(jax.jit(jaxattr.rap(f))(x, target))
        logit = np.take_along_axis(np.asarray(jax.jit(f)(x)), np.asarray(target)[:, None], 1)[:, 0]
    np.testing.assert_allclose(a.sum((1, 2, 3)), logit, rtol=1e-8)
    assert a.min() < 0 < a.max()


def test_every_layer_sums_to_the_logit():
    with enable_x64(True):
        f, x, target = case("vgg")
        found = jax.device_get(jax.jit(jaxattr.rap_details(f))(x, target))
        a = jax.jit(jaxattr.rap(f))(x, target)
        logit = np.take_along_axis(np.asarray(jax.jit(f)(x)), np.asarray(target)[:, None], 1)[:, 0]
    for name, r in found.layers.items():
        np.testing.assert_allclose(r.reshape(3, -1).sum(1), logit, rtol=1e-8, err_msg=name)
    assert relative_error(found.attribution, a) < 1e-12


def convolution(x):
    w = jax.random.normal(KEYS[0], (3, 2, 1, 6), x.dtype)
    return lax.conv_general_dilated(
        x,
        w,
        (2, 1),
        ((1, 1), (0, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
        rhs_dilation=(1, 2),
    )


def dense(x):
    return x.reshape(1, -1) @ jax.random.normal(KEYS[0], (60, 5), x.dtype)


LAYERS = {"convolution": convolution, "dense": dense}


def handed_down(layer, rule, sign):
    """Run a rule on one layer; return its contributions, the relevance, and what it hands down."""
    with enable_x64(True):
        x = jax.random.normal(KEYS[1], (1, 4, 5, 3))
        x = jnp.abs(x) if sign == "positive" else x
        x = jnp.where(jax.random.bernoulli(KEYS[2], 0.3, x.shape), 0, x)
        r = jax.random.normal(KEYS[3], jax.eval_shape(layer, x).shape)
        ruled = jaxattr.with_rules(layer, {"affine": affine(rule)})
        (down,) = jax.jit(lambda x, r: jax.vjp(ruled, x)[1](r))(x, r)
        jacobian = jax.jit(jax.jacobian(layer))(x).reshape(r.size, x.size)
        z = np.asarray(jacobian) * np.asarray(x).ravel()
    return z, np.asarray(r).ravel(), np.asarray(down).ravel(), np.asarray(x).ravel()


@pytest.mark.parametrize("inhibited", mostly_slow([True, False], [True]))
@pytest.mark.parametrize("sign", ["positive", "both"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_dense_reference(layer, sign, inhibited):
    z, r, down, _ = handed_down(layer, relative(inhibited=inhibited), sign)
    wanted = np.zeros(z.shape[1])
    for k, contributions in enumerate(z):
        up, low = np.maximum(contributions, 0), -np.minimum(contributions, 0)
        excite = up / up.sum() if up.any() else up
        inhibit = low / low.sum() if low.any() else low
        first = inhibit if inhibited and r[k] < 0 else excite
        wanted += r[k] * (first + low.sum() / max(np.abs(contributions).sum(), 1e-300) * inhibit)
    active = wanted != 0
    wanted[active] -= (wanted.sum() - r.sum()) / active.sum()
    np.testing.assert_allclose(down, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_influence_and_the_box(layer):
    z, r, down, x = handed_down(layer, influence, "both")
    share = np.abs(z) / np.abs(z).sum(1, keepdims=True)
    np.testing.assert_allclose(down, share.T @ r, rtol=1e-9)
    z, r, down, x = handed_down(layer, image_box, "both")
    with enable_x64(True):
        w = np.asarray(jax.jacobian(layer)(jnp.zeros((1, 4, 5, 3)))).reshape(z.shape)
    boxed = z - x.min() * np.maximum(w, 0) - x.max() * np.minimum(w, 0)
    np.testing.assert_allclose(down, (boxed / boxed.sum(1, keepdims=True)).T @ r, rtol=1e-9)


@pytest.mark.slow
def test_every_spelling_of_relu():
    net, params, x, target = load("vgg")
    spelled = [plain(net, params, relu=RELUS[r]) for r in ("jax.nn.relu", *OTHERS)]
    first, *others = (jax.jit(jaxattr.rap(f))(x, target) for f in spelled)
    for other in others:
        assert relative_error(other, first) < 1e-5


def test_what_has_no_rule_is_refused():
    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    for f, message in {
        lambda x: jax.nn.softmax(x.mean((1, 2))): "logits rather than probabilities",
        lambda x: jnp.cumprod(x.mean((1, 2)), 1): "`cumprod`",
    }.items():
        with pytest.raises(jaxattr.UnsupportedOperation, match=message):
            jaxattr.rap(f)(x, target)
