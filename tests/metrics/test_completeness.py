"""Completeness: on a linear model, and of integrated gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr
from jaxattr import metrics, scores

WEIGHTS = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4, 3)), jnp.float32)
TARGET = jnp.array([0, 2])


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def smooth(x):
    return jnp.tanh(linear(x) / 16) * 9


def test_completeness_of_gradient_times_input_on_a_linear_model():
    a = X * WEIGHTS.T[TARGET].reshape(X.shape)
    measure = jax.jit(metrics.completeness_error(linear))
    np.testing.assert_allclose(measure(X, TARGET, a).score, 0, atol=1e-5)
    gain = linear(X)[jnp.arange(2), TARGET]
    np.testing.assert_allclose(measure(X, TARGET, 0 * a).score, abs(gain), rtol=1e-5)
    np.testing.assert_allclose(measure(X, TARGET, a.sum(-1)).score, 0, atol=1e-5)
    ones = jax.jit(metrics.completeness_error(linear, baseline=jnp.ones_like))(
        X, TARGET, 0 * a
    ).score
    np.testing.assert_allclose(ones, abs(gain - WEIGHTS.sum(0)[TARGET]), rtol=1e-5)


def test_completeness_of_integrated_gradients():
    a = jax.jit(jaxattr.integrated_gradients(smooth, steps=200))(X, TARGET)
    assert jax.jit(metrics.completeness_error(smooth))(X, TARGET, a).score.max() < 1e-3


@pytest.mark.parametrize("metric", [metrics.completeness_error, metrics.infidelity])
def test_a_score_of_the_logits(metric):
    """The probability of a model is the logit of the model of probabilities."""
    key = {} if metric is metrics.completeness_error else {"key": jax.random.key(0)}
    ours = metric(linear, score=scores.probability)(X, TARGET, X, **key).score
    theirs = metric(lambda x: jax.nn.softmax(linear(x)))(X, TARGET, X, **key).score
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
