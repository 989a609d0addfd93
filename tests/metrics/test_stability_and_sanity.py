"""Metrics of methods, on maps of which all is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr
from jaxattr import metrics

KEY, X, TARGET = (
    jax.random.key(0),
    jnp.array([[1.0, -2.0, 4.0], [2.0, 2.0, -1.0]]),
    jnp.array([0, 2]),
)
X = X[:, None, :, None]
WEIGHTS = jnp.array([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0], [0.0, 0.0, 5.0]])


def net(x):
    with jax.named_scope("features"):
        x = x * 3
    return x.reshape(-1, 3) @ WEIGHTS


def times(k):
    return lambda x, target, key=None: k * x


def neighbors(x, radius, n):
    """Return the images that a metric draws."""
    keys = jax.random.split(jax.random.split(KEY)[0], n)
    drawn = [jax.random.uniform(k, x.shape[1:], x.dtype, -radius, radius) for k in keys]
    return np.asarray(x) + np.stack(drawn)[:, None]


def norm(a):
    return np.sqrt((np.asarray(a, float) ** 2).sum(tuple(range(2, np.ndim(a)))))


@jax.jit
def found(x):
    given, square = {"samples": 7, "radius": 0.3}, lambda x, target, key=None: x**2
    keyed = {
        "average": metrics.average_sensitivity(square, **given),
        "lipschitz": metrics.local_lipschitz_estimate(times(-3), **given),
        "input": metrics.relative_input_stability(square, net, **given),
        "layer": metrics.relative_representation_stability(square, net, layer="features", **given),
        "output": metrics.relative_output_stability(square, net, **given),
    }
    return {n: m(x, TARGET, key=KEY) for n, m in keyed.items()} | {
        "continuity": metrics.continuity(times(2), steps=6)(x, TARGET),
        "gradient": metrics.input_invariance(jaxattr.saliency, net)(x, TARGET),
        "product": metrics.input_invariance(jaxattr.input_x_gradient, net, shift=2)(x, TARGET),
    }


def test_scores_of_known_maps():
    seen = jax.tree.map(np.asarray, found(X))
    near, x = neighbors(X, 0.3, 7), np.asarray(X)
    moved = near**2 - x**2
    average = (norm(moved) / norm(x[None] ** 2)).mean(0)
    np.testing.assert_allclose(seen["average"].score, average, rtol=1e-5)
    np.testing.assert_allclose(seen["lipschitz"].score, 3, rtol=1e-5)
    here, there = (z.reshape(*z.shape[:-3], 3) * 3 @ np.asarray(WEIGHTS) for z in (x, near))
    same = there.argmax(-1) == here.argmax(-1)
    assert 0 < same.mean() < 1
    best = lambda by: np.where(same, norm(moved / x**2) / by, -np.inf).max(0)
    for name, by in (
        ("input", (near - x) / x),
        ("layer", (near - x) / x),
        ("output", there - here),
    ):
        np.testing.assert_allclose(seen[name].score, best(norm(by)), rtol=1e-4)


def test_a_map_moves_with_its_image():
    x = np.asarray(X)[:, 0, :, 0]
    shifted = [np.stack([np.roll(np.pad(r, 3), d)[3:6] for r in x]) for d in (-3, -2, -1, 1, 2, 3)]
    best = np.max([2 * np.abs(s - x).sum(1) / np.linalg.norm(s - x, axis=1) for s in shifted], 0)
    np.testing.assert_allclose(found(X)["continuity"].score, best, rtol=1e-5)


def test_shifted_inputs_change_what_is_multiplied_by_them():
    np.testing.assert_allclose(found(X)["gradient"].score, 0, atol=1e-6)
    gradient = 3 * np.asarray(WEIGHTS).T[TARGET]
    product = np.abs(np.asarray(X).reshape(2, 3) * gradient).max(1)
    np.testing.assert_allclose(found(X)["product"].score, 2 * gradient.max(1) / product, rtol=1e-5)


def test_another_class_is_drawn():
    explain = lambda x, t, key=None: jnp.broadcast_to(t[:, None, None].astype(float), (2, 1, 3))
    compare = lambda a, b: metrics.Score(a[:, 0, 0] - b[:, 0, 0], jnp.ones(2, bool))
    measure = jax.jit(
        jax.vmap(
            lambda key: (
                metrics.random_logit(explain, classes=3, similarity=compare)(
                    X, TARGET, key=key
                ).score
            )
        )
    )
    drawn = np.asarray(TARGET) - np.asarray(measure(jax.random.split(KEY, 40)))
    assert [set(d) for d in drawn.T] == [{1, 2}, {0, 1}]
    with pytest.raises(ValueError, match="classes is 1"):
        metrics.random_logit(explain, classes=1)


def test_layers_become_random_one_after_another():
    """The map of the last layer alone changes at the first stage, all of it at the second."""
    parameters = {
        "first": jnp.arange(12.0).reshape(1, 4, 3, 1),
        "last": jnp.arange(9.0).reshape(1, 3, 3, 1),
    }
    explain = lambda p: lambda x, target, key=None: jnp.broadcast_to(p["first"], (2, 4, 3, 1))
    measure = metrics.mprt(explain, parameters, ["last", "first"])
    curve = jax.jit(measure)(X, TARGET, key=KEY).curve
    np.testing.assert_allclose(curve[:, 0], 1, rtol=1e-6)
    assert (np.abs(curve[:, 1]) < 0.9).all()
    with pytest.raises(ValueError, match="the number of layers is 0"):
        metrics.mprt(explain, parameters, [])
