"""Shapley values, surrogates and sensitivity: peers' arrays, laws, all orders by hand."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import load, plain
from peers import peer, relative_error
from precision import enable_x64

import jaxattr
from jaxattr import scores
from jaxattr.image.superpixels import parted, squares
from jaxattr.loops.quadrature import quasi_random
from jaxattr.methods.coalitions import game
from jaxattr.methods.gradient_shap import expected_gradient
from jaxattr.methods.kernel_shap import constrained
from jaxattr.methods.lime import ridge
from jaxattr.methods.shapley_sampling import marginal
from jaxattr.methods.sobol_attribution import total_indices

PEERS, SENSITIVITY = peer("shapley"), peer("sensitivity")
KEY = jax.random.key(0)
X, TARGET = jax.random.normal(jax.random.key(1), (2, 4, 6, 3)), jnp.array([0, 2])
W = jax.random.normal(jax.random.key(2), (3, 3))
LABELS = np.stack([np.arange(24).reshape(4, 6) // 6, np.arange(24).reshape(4, 6) % 3])
"""Four parts of the first image, three of the second."""
SUMMING = {
    "shapley_sampling": lambda **o: jaxattr.shapley_sampling(f, samples=2, **o),
    "kernel_shap, some": lambda **o: jaxattr.kernel_shap(f, samples=9, **o),
    "kernel_shap, all": lambda **o: jaxattr.kernel_shap(f, samples=14, **o),
}


def f(x):
    return jnp.tanh(jax.nn.relu(x - 0.1).sum((1, 2)) @ W / 8)


def test_parts_against_captum_and_lime():
    """Given orders and coalitions."""
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        g, x, target = plain(net, params), x[:1], target[:1]

        @jax.jit
        def found(x, target):
            worths = {}
            for name, score in {"logit": scores.logit, "probability": scores.probability}.items():
                given = {"superpixels": PEERS["labels"], "cells": 1, "baseline": 0.0}
                played = game(g, x, target, **given, score=score, chunk=4, progress=None)
                worths[name] = played
            worth, there = worths["logit"].worth, worths["logit"].there
            z = jnp.asarray(PEERS["coalitions"], bool)
            ends = worth(lambda i: jnp.full(9, i == 1), 2)
            gains = worth(lambda i: z[i], len(z)) - ends[:, :1]
            alone = worth(lambda i: jnp.arange(9) != i, 9)
            likely = worths["probability"].worth(lambda i: z[i], len(z))
            return {
                "ablation": ends[:, 1:] - alone,
                "sampling": marginal(worth, jnp.argsort(PEERS["orders"], 1)),
                "kernel": constrained(z, gains, jnp.ones(40), ends[:, 1] - ends[:, 0], there),
                "lime": ridge(z, likely, there, width=0.25, alpha=1.0),
            }

        for name, ours in found(x, target).items():
            # Captum sums orders in float32, and constrains by two samples of weight 1e6.
            tolerance = {"sampling": 1e-6, "kernel": 1e-4}.get(name, 1e-9)
            assert relative_error(ours[0], PEERS[name]) < tolerance, name


def test_gradient_shap_against_captum():
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        numbers, places = PEERS["draws"]
        references = jnp.asarray(PEERS["references"])
        draws = jnp.asarray(numbers, int), jnp.asarray(places)
        explain = lambda x, t: expected_gradient(
            plain(net, params), x, t, references, draws, chunk=12
        )
        found = jax.jit(explain)(x[:1], target[:1])
    assert relative_error(found, PEERS["gradient_shap"]) < 1e-9


@pytest.mark.parametrize("name", SUMMING)
def test_shapley_values_sum_to_what_the_image_adds(name):
    """Images of different numbers of parts, each of its own."""
    explain = jax.jit(SUMMING[name](superpixels=LABELS, baseline=0.2))
    maps = explain(X, TARGET, key=KEY)
    rows = np.arange(2)
    change = f(X)[rows, TARGET] - f(0 * X + 0.2)[rows, TARGET]
    np.testing.assert_allclose(maps.sum((1, 2, 3)), change, rtol=1e-5, atol=1e-6)


def test_kernel_shap_of_all_coalitions_is_the_mean_over_all_orders():
    with enable_x64(True):
        x = X.astype("float64")
        explain = jaxattr.kernel_shap(f, superpixels=LABELS, baseline=0.2, samples=14)
        maps = jax.device_get(jax.jit(explain)(x, TARGET, key=KEY))
        worth = jax.jit(jax.vmap(lambda m: f(jnp.where(m, x[1:], 0.2))[0, 2]))
        subsets = np.array([[i >> k & 1 for k in range(3)] for i in range(8)], bool)
        found = np.asarray(worth(subsets[:, LABELS[1]][:, None, ..., None]))
        known = {tuple(np.flatnonzero(s).tolist()): v for s, v in zip(subsets, found, strict=True)}
        added = np.zeros(3)
        for order in permutations(range(3)):
            for i, k in enumerate(order):
                after, before = (tuple(sorted(order[:j])) for j in (i + 1, i))
                added[k] += (known[after] - known[before]) / 6
    np.testing.assert_allclose(maps[1, 0, :3, 0] * 8, added, rtol=1e-9)


def test_where_parts_do_not_interact():
    """Ablation, one order, and LIME without a ridge agree."""
    g = lambda x: jnp.stack([jnp.tanh(x).sum((1, 2, 3)), x.sum((1, 2, 3))], -1)
    given = {"superpixels": LABELS, "baseline": 0.2}
    methods = [
        jaxattr.feature_ablation(g, **given),
        jaxattr.shapley_sampling(g, samples=1, **given),
        jaxattr.kernel_shap(g, samples=13, **given),
        jaxattr.lime(g, samples=40, alpha=1e-6, score=scores.logit, **given),
    ]
    first, *others = jax.jit(lambda x, t: [m(x, t, key=KEY) for m in methods])(X, TARGET // 2)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-3, atol=1e-5)
    pixels = jaxattr.feature_ablation(g, superpixels=np.arange(24).reshape(4, 6), chunk=9)
    found = jax.jit(pixels)(X, jnp.ones(2, int))
    np.testing.assert_allclose(found[..., 0], X.sum(-1), rtol=1e-3, atol=1e-5)


def test_expected_baselines_sum_to_their_mean_change():
    references = jax.random.normal(KEY, (3, 4, 6, 3))
    maps = jax.jit(jaxattr.deep_shap(f, references=references))(X, TARGET)
    rows = np.arange(2)
    change = f(X)[rows, TARGET] - f(references).mean(0)[TARGET]
    np.testing.assert_allclose(maps.sum((1, 2, 3)), change, rtol=1e-4, atol=1e-5)
    affine = lambda x: x.sum((1, 2)) @ W + 1
    explain = jaxattr.gradient_shap(affine, references=0.3, samples=2)
    maps = jax.jit(explain)(X, TARGET, key=KEY)
    change = (affine(X) - affine(0 * X + 0.3))[rows, TARGET]
    np.testing.assert_allclose(maps.sum((1, 2, 3)), change, rtol=1e-4)
    with pytest.raises(ValueError, match=r"references has shape \(3, 4, 5, 3\), which does not"):
        jaxattr.deep_shap(f, references=references[:, :, :5])(X, TARGET)


def test_sobol_indices_of_a_sum_are_shares_of_its_variance():
    weights = np.array([[3.0, 1.0], [0.0, 2.0]])
    g = lambda x: (x[..., 0] * weights).sum((1, 2))[:, None]
    whole = lambda a, size: a
    explain = jaxattr.sobol_attribution(g, cells=2, samples=512, enlarge=whole, chunk=512)
    found = jax.jit(explain)(jnp.ones((1, 2, 2, 1)), jnp.array([0]))[0, ..., 0]
    np.testing.assert_allclose(found, weights**2 / (weights**2).sum(), atol=0.02)
    assert found[1, 0] == 0
    assert (total_indices(jnp.ones((1, 3, 4))) == 0).all()


def test_sobol_and_hsic_against_xplique():
    """Its sequence too; it divides the variance by 15 instead of 16, and has float32."""
    weight, x = SENSITIVITY["weight"], np.moveaxis(SENSITIVITY["x"], -1, -3)
    g = lambda x: jax.nn.softmax(jnp.tanh(x.reshape(len(x), 64) @ weight))
    given = {"cells": 4, "score": scores.logit, "enlarge": lambda a, size: a, "chunk": 16}
    methods = [
        jaxattr.sobol_attribution(g, samples=16, **given),
        jaxattr.hsic_attribution(g, samples=64, **given),
    ]
    sobol, hsic = jax.jit(lambda x, t: [m(x, t)[0, ..., 0] for m in methods])(x, jnp.array([1]))
    assert relative_error(sobol * 15 / 16, SENSITIVITY["sobol"]) < 1e-4
    assert relative_error(hsic, SENSITIVITY["hsic"]) < 1e-3


def test_quasi_random_points_are_even():
    """Every half of every axis has as many points as the other, but for the zero left out."""
    points = quasi_random(31, 40)
    assert points.shape == (31, 40)
    assert ((points < 0.5).sum(0) == 15).all()


def test_superpixels():
    assert squares((4, 6), 9).tolist() == np.arange(24).reshape(4, 6).tolist()
    parts = parted(LABELS, (2, 4, 6), cells=1)
    assert parts.number == 4
    np.testing.assert_array_equal(parts.pixels(), [[6, 6, 6, 6], [8, 8, 8, 0]])
    values = jnp.arange(8.0).reshape(2, 4)
    np.testing.assert_allclose(parts.spread(values).sum((1, 2)), [6, 15])
    for wrong, message in [
        (LABELS[:, :3], r"shape \(2, 3, 6\) and dtype int64; expected whole numbers from 0"),
        (LABELS - 1, "a lowest label of -1"),
        (LABELS + 0.5, "dtype float64"),
    ]:
        with pytest.raises(ValueError, match=message):
            parted(wrong, (2, 4, 6), cells=1)
    with pytest.raises(ValueError, match="superpixels are an argument of a function under jit"):
        jax.jit(lambda s: jaxattr.feature_ablation(f, superpixels=s)(X, TARGET))(LABELS)


@pytest.mark.usefixtures("optimized")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["kernel_shap", "sobol_attribution"])
def test_memory_follows_the_chunk_and_not_the_samples(name):
    x, target = jnp.ones((1, 64, 64, 3)), jnp.zeros(1, int)

    def needed(samples, chunk):
        explain = getattr(jaxattr, name)(f, samples=samples, cells=4, chunk=chunk)
        program = jax.jit(lambda x, t: explain(x, t, key=KEY)).lower(x, target).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert needed(64, 2) < 1.5 * needed(16, 2)
    assert needed(64, 16) > 3 * needed(64, 2)
