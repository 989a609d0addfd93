"""Composites: a rule for any kind, any layer by name and any operation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import load, plain
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.rules import lrp
from jaxattr.rules.composites import Composite, uniform
from jaxattr.tracing.local import plain as own_derivative


@pytest.fixture
def resnet():
    with enable_x64(True):
        net, params, x, target = load("resnet", "float64")
        yield plain(net, params), x, target


def maps(resnet, composite):
    f, x, target = resnet
    return jax.jit(jaxattr.lrp(f, composite=composite))(x, target)


def test_a_layer_by_name(resnet):
    """Naming every layer is the same as naming none and giving all of them that rule."""
    everywhere = maps(resnet, uniform(lrp.gamma()))
    names = ["conv1", "layer1", "layer2", "fc"]
    named = uniform(lrp.epsilon())._replace(layers=dict.fromkeys(names, lrp.gamma()))
    np.testing.assert_allclose(maps(resnet, named), everywhere, rtol=1e-10, atol=1e-14)
    one = uniform(lrp.epsilon())._replace(layers={"layer2.conv2": lrp.gamma()})
    assert np.abs(maps(resnet, one) - maps(resnet, uniform(lrp.epsilon()))).max() > 1e-3
    assert np.abs(maps(resnet, one) - everywhere).max() > 1e-3


def test_the_last_name_counts(resnet):
    plus, epsilon = lrp.z_plus(), lrp.epsilon()
    twice = uniform(epsilon)._replace(layers={"layer1": plus, "layer1.conv1": epsilon})
    once = uniform(epsilon)._replace(layers={"layer1.conv2": plus})
    np.testing.assert_array_equal(maps(resnet, twice), maps(resnet, once))


def test_conserving_reaches_named_layers(resnet):
    f, x, target = resnet
    named = uniform(lrp.epsilon())._replace(layers={"layer1": lrp.gamma()})
    explain = jax.jit(jaxattr.lrp(f, composite=named, conserve=True))
    total = explain(x, target).sum((1, 2, 3))
    logit = jnp.take_along_axis(f(x), target[:, None], 1)[:, 0]
    np.testing.assert_allclose(total, logit, rtol=1e-8)


def test_names_that_are_not_there(resnet):
    for slot, name, message in [
        ("layers", "layer9", "rule for the layer 'layer9'.* it has layer2/conv2"),
        ("ops", "gelu", "rule for the operation 'gelu'.* it has"),
    ]:
        composite = uniform(lrp.epsilon())._replace(**{slot: {name: lrp.epsilon()}})
        with pytest.raises(ValueError, match=message):
            maps(resnet, composite)


def test_an_operation_by_its_function():
    """A softplus that hands all to nobody, between two that pass."""
    f = lambda x: jax.nn.softplus(jnp.tanh(x.sum((1, 2)) @ jnp.array([[1.0], [2.0]])))
    x, target = jnp.ones((1, 2, 2, 2)), jnp.array([0])
    nothing = lambda local: lambda *operands: jax.lax.stop_gradient(local.value(*operands))
    composite = uniform(lrp.epsilon())
    assert np.abs(jax.jit(jaxattr.lrp(f, composite=composite))(x, target)).max() > 0.1
    without = composite._replace(ops={"softplus": nothing})
    assert not np.asarray(jax.jit(jaxattr.lrp(f, composite=without))(x, target)).any()


def test_kinds_that_were_refused_or_fixed():
    """Statistic, max-pool and unknown are slots as all others are."""
    f = lambda x: (
        jnp.cumprod(x.max((1, 2)), 1) * jax.lax.rsqrt((x**2).mean((1, 2)).mean(-1) + 1)[:, None]
    )
    x, target = jnp.arange(8.0).reshape(1, 2, 2, 2), jnp.array([0])
    rule = lrp.epsilon()
    for slots in ({}, {"statistic": own_derivative}, {"unknown": own_derivative}):
        with pytest.raises(jaxattr.UnsupportedOperation):
            jaxattr.lrp(f, composite=Composite(rule, rule, hold=(), **slots))(x, target)
    slots = {"statistic": own_derivative, "unknown": own_derivative, "hold": ()}
    a = jax.jit(jaxattr.lrp(f, composite=Composite(rule, rule, **slots)))(x, target)
    assert np.isfinite(a).all()
    nothing = lambda local: lambda *operands: jax.lax.stop_gradient(local.value(*operands))
    g = lambda x: x.max((1, 2))
    assert np.asarray(jax.jit(jaxattr.lrp(g))(x, target)).any()
    assert not np.asarray(
        jax.jit(jaxattr.lrp(g, composite=Composite(rule, rule, max_pool=nothing)))(x, target)
    ).any()


def test_a_name_with_resize_in_it_is_only_a_name():
    """A convolution has the convolutions' rule whatever the function is called that makes it."""
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 4)), jnp.float32)

    def block(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def resize_block(x):
        return block(x)

    x, target = jnp.ones((1, 5, 5, 3)), jnp.array([1])
    one, other = jax.jit(block), jax.jit(resize_block)
    maps = [jax.jit(jaxattr.lrp(lambda x, g=g: g(x).mean((1, 2))))(x, target) for g in (one, other)]
    np.testing.assert_array_equal(*maps)


def test_resizing_has_no_weights_of_its_own():
    f = lambda x: jax.image.resize(x, (1, 8, 8, 2), "bilinear").mean((1, 2))
    sites = jaxattr.sites(f, jnp.ones((1, 4, 4, 2)))
    assert {s.kind.value for s in sites} <= {"linear", "affine"}
    assert all(s.op != "dot_general" for s in sites if s.kind == "affine")


SPELLINGS = {
    "1x1": (
        lambda x, w: jax.lax.conv_general_dilated(
            x, w[None, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        lambda x, w: x @ w,
        lambda x, w: jnp.einsum("bhwc,cd->bhwd", x, w),
        lambda x, w: (x.reshape(-1, 3) @ w).reshape(*x.shape[:3], -1),
    ),
    "patches": (
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        lambda x, w: jnp.einsum("bhiwjc,ijcd->bhwd", x.reshape(-1, 2, 2, 2, 2, 3), w),
    ),
    "all of the image": (
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        lambda x, w: (x.reshape(len(x), -1) @ w.reshape(-1, w.shape[-1]))[:, None, None],
    ),
}


@pytest.mark.parametrize("layer", SPELLINGS)
@pytest.mark.parametrize("method", mostly_slow(["lrp", "rap", "excitation_backprop"], ["lrp"]))
def test_every_spelling_of_a_layer(layer, method):
    """A convolution is what uses its weights at several positions, however it is written."""
    shape = {"1x1": (3, 5), "patches": (2, 2, 3, 5), "all of the image": (4, 4, 3, 5)}[layer]
    keys = jax.random.split(jax.random.key(0), 3)
    w, head = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (5, 4))
    x, target = jax.random.normal(keys[2], (2, 4, 4, 3)), jnp.array([0, 3])
    explain = getattr(jaxattr, method)
    maps = [
        jax.jit(explain(lambda x, f=f: jax.nn.relu(f(x, w)).mean((1, 2)) @ head))(x, target)
        for f in SPELLINGS[layer]
    ]
    for a in maps[1:]:
        np.testing.assert_allclose(a, maps[0], rtol=2e-4, atol=2e-5)
