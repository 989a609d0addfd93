"""Relevance through channels, and averages of attributions over mirrors, sizes and methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import load, plain
from precision import enable_x64

import jaxattr
from jaxattr.rules.composites import epsilon_plus

X, TARGET = jax.random.normal(jax.random.key(0), (2, 4, 6, 3)), jnp.array([0, 1])
W = jax.random.normal(jax.random.key(1), (72, 3))


def f(x):
    """Sees where pixels are, at any size of 4 x 6 or, repeated, 8 x 12."""
    h = jnp.tanh(x)
    return (h[:, :4, :6] if x.shape[1] < 8 else h[:, ::2, ::2]).reshape(len(x), 72) @ W


def test_maps_of_channels_sum_to_relevance():
    """All channels to the whole map, and with `conserve` each to the channel's own."""
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        g, x, target = plain(net, params), x[:2], target[:2]
        all_of = jaxattr.concept_relevance(g, layer="relu3", channels=range(16))
        most = jaxattr.concept_relevance(g, layer="relu3", count=3, conserve=True)
        whole, every, found, layers = jax.jit(
            lambda x, t: [
                jaxattr.lrp(g)(x, t),
                all_of(x, t),
                most(x, t),
                jaxattr.lrp_details(g, conserve=True)(x, t).layers["relu3/relu"],
            ]
        )(x, target)
        np.testing.assert_allclose(every.attribution, whole, rtol=1e-7, atol=1e-10)
        relevance = layers.sum((1, 2))
        np.testing.assert_array_equal(found.channels, np.argsort(-relevance)[:, :3])
        np.testing.assert_allclose(found.relevance, -np.sort(-relevance)[:, :3], rtol=1e-9)
        np.testing.assert_allclose(found.maps.sum((2, 3, 4)), found.relevance, rtol=1e-9)
        np.testing.assert_allclose(found.attribution, found.maps.sum(1), rtol=1e-9)


def test_what_bypasses_a_layer_is_left_out():
    def g(x):
        with jax.named_scope("branch"):
            h = 2 * x
        return (h + 3 * x).sum((1, 2)) @ jnp.eye(3)

    found = jaxattr.concept_relevance(
        g, layer="branch", channels=[0, 1, 2], composite=epsilon_plus(epsilon=0.0)
    )(X, TARGET)
    ours = jax.nn.one_hot(TARGET, 3)[:, None, None] * X
    np.testing.assert_allclose(found.attribution, 2 * ours, rtol=1e-4, atol=1e-5)


def test_channels_that_are_not_there():
    net, params, x, target = load("tiny")
    for options in ({"count": 99}, {"channels": (99,)}, {"channels": (-1,)}):
        explain = jaxattr.concept_relevance(plain(net, params), layer="relu1", **options)
        with pytest.raises(ValueError, match=r"layer 'relu1' has \d+ channels; expected count"):
            jax.eval_shape(explain, x, target)


def test_mirrors_and_sizes():
    saliency = jaxattr.saliency(f)
    plain_map = jaxattr.augmented(saliency, flip=False)(X, TARGET)
    np.testing.assert_array_equal(plain_map, saliency(X, TARGET))
    both = jax.jit(jaxattr.augmented(saliency))
    np.testing.assert_allclose(both(X[:, :, ::-1], TARGET), both(X, TARGET)[:, :, ::-1], rtol=1e-5)
    doubled = lambda a, size: a.repeat(2, 1).repeat(2, 2) if size[0] == 8 else a[:, ::2, ::2]
    sizes = jaxattr.augmented(saliency, scales=(1, 2), flip=False, enlarge=doubled)
    np.testing.assert_allclose(sizes(X, TARGET), plain_map, rtol=1e-5)
    with pytest.raises(ValueError, match=r"scales is \(0,\); expected positive numbers"):
        jaxattr.augmented(saliency, scales=(0,))


def test_ensembles_are_of_ranks():
    gradient, product = jaxattr.saliency(f), jaxattr.input_x_gradient(f)
    loud = lambda x, target, *, key=None: 1e6 * product(x, target)
    maps = jax.jit(lambda x, t: jaxattr.ensemble([gradient, loud])(x, t))(X, TARGET)
    expected = [
        np.argsort(np.argsort(np.asarray(a(X, TARGET)).sum(-1).reshape(2, 24)))
        for a in (gradient, product)
    ]
    np.testing.assert_allclose(maps.reshape(2, 24), np.mean(expected, 0) / 23, rtol=1e-6)
    with pytest.raises(ValueError, match="no attribution to average"):
        jaxattr.ensemble([])
