"""Boundary dependency of known maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics


def test_boundary_dependency_of_uniform_and_inner_maps():
    measure = jax.jit(metrics.boundary_dependency)
    uniform = measure(np.ones((1, 224, 224, 1), np.float32))
    np.testing.assert_allclose(uniform.score, 1 - (192 / 224) ** 2, rtol=1e-5)
    edge = np.zeros((4, 40, 50), np.float32)
    edge[0, 15, 20] = -3
    edge[[1, 2, 3], [16, 20, 20], [16, 33, 34]] = 1
    found = measure(edge)
    np.testing.assert_array_equal(found.score, [1, 0, 0, 1])
    both = measure(edge[:1] + edge[1:2])
    np.testing.assert_allclose(both.score, 0.75)
    signed = metrics.boundary_dependency(edge[:1] + edge[1:2], signed=True)  # -3 of -2
    np.testing.assert_allclose(signed.score, 1.5)
    assert measure(np.zeros((1, 40, 40), np.float32)).valid.tolist() == [False]
    with pytest.raises(ValueError, match="border is 16; expected 1 to 15"):
        metrics.boundary_dependency(jnp.ones((1, 32, 40)))


def test_the_upper_half():
    score, valid = jnp.array([3.0, jnp.nan, 1.0, 2.0, 2.0, 2.0]), jnp.arange(6) != 1
    assert metrics.upper_half(score, valid).tolist() == [True, False, False, True, True, False]
