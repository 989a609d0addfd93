"""Boundary dependency of known maps."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics


def test_boundary_dependency_of_uniform_and_inner_maps():
    uniform = metrics.boundary_dependency(jnp.ones((1, 224, 224, 1)))
    np.testing.assert_allclose(uniform.score, 1 - (192 / 224) ** 2, rtol=1e-5)
    edge = jnp.zeros((4, 40, 50)).at[0, 15, 20].set(-3).at[1, 16, 16].set(1)
    edge = edge.at[2, 20, 33].set(1).at[3, 20, 34].set(1)
    found = metrics.boundary_dependency(edge)
    np.testing.assert_array_equal(found.score, [1, 0, 0, 1])
    both = metrics.boundary_dependency(edge[:1] + edge[1:2])
    np.testing.assert_allclose(both.score, 0.75)
    assert metrics.boundary_dependency(jnp.zeros((1, 40, 40))).valid.tolist() == [False]
    with pytest.raises(ValueError, match="border is 16; expected 1 to 15"):
        metrics.boundary_dependency(jnp.ones((1, 32, 40)))


def test_the_upper_half():
    score, valid = jnp.array([3.0, jnp.nan, 1.0, 2.0, 2.0, 2.0]), jnp.arange(6) != 1
    assert metrics.upper_half(score, valid).tolist() == [True, False, False, True, True, False]
