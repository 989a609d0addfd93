"""Chunks, and the mean and variance of samples that come in chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64
from speed import mostly_slow

from jaxattr.loops.chunks import chunks, joined
from jaxattr.loops.moments import moments
from jaxattr.loops.precision import at_least_float32


@pytest.mark.parametrize(
    ("samples", "size"),
    mostly_slow([(1, 4), (5, 2), (7, 3), (8, 4), (9, 4), (12, 5)], [(1, 4), (7, 3), (8, 4)]),
)
def test_chunks_hold_every_sample_once(samples, size):
    numbers, valid = chunks(samples, size)
    assert numbers.shape[1] <= size
    np.testing.assert_array_equal(numbers[valid], np.arange(samples))
    assert (numbers[~valid] == samples - 1).all()
    assert (~valid).sum() < len(numbers)  # fewer than one for each chunk
    np.testing.assert_array_equal(joined({"a": numbers}, samples)["a"], np.arange(samples))


@pytest.mark.parametrize("chunk", [1, 3, 5, 11, 20])
def test_moments_are_numpys(chunk):
    rng = np.random.default_rng(0)
    samples, weights = rng.normal(1e3, 1, size=(11, 4)), rng.uniform(size=11)
    weights[:3] = 0
    with enable_x64(True):
        found = jax.jit(partial(moments, jnp.cos, chunk=chunk))(samples, weights)
        values = np.cos(samples)
    mean = np.average(values, axis=0, weights=weights)
    variance = np.average((values - mean) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-12)


def test_a_small_variance_around_a_large_mean_keeps_its_digits():
    samples = 1e4 + np.random.default_rng(0).normal(size=1000).astype(np.float32)
    found = moments(lambda a: a, jnp.asarray(samples), jnp.ones(1000), chunk=10)
    np.testing.assert_allclose(found.variance, samples.astype(float).var(), rtol=1e-3)


def test_low_precision_is_accumulated_in_float32():
    """In bfloat16 the sum of a thousand ones would stop at 256."""
    found = moments(lambda a: a, jnp.ones((1000, 2), jnp.bfloat16), jnp.ones(1000))
    assert found.mean.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.mean.astype(float), 1)
    assert at_least_float32(jnp.ones(1, jnp.float16)).dtype == jnp.float32
    with enable_x64(True):
        assert at_least_float32(jnp.ones(1, jnp.float64)).dtype == jnp.float64


def test_samples_may_be_trees_and_keys():
    keys, scales = jax.random.split(jax.random.key(0), 5), jnp.arange(5.0)
    found = moments(lambda s: s[1] * jax.random.normal(s[0]), (keys, scales), jnp.ones(5), chunk=2)
    expected = [s * jax.random.normal(k) for k, s in zip(keys, scales, strict=True)]
    np.testing.assert_allclose(found.mean, np.mean(expected), rtol=1e-5)
