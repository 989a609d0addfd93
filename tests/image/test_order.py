"""Ranks and order statistics against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from jaxattr.image.order import descending, nth_smallest

every_precision = pytest.mark.parametrize("dtype", ["float32", "float64"])


@every_precision
def test_nth_smallest_is_that_of_a_sort(dtype):
    with enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        a, where = np.abs(rng.normal(size=50)).astype(dtype), rng.uniform(size=50) < 0.7
        a[:8], a[20] = 0, a[30]
        ordered = np.sort(np.where(where, a, np.inf))
        nth = jax.vmap(lambda n: nth_smallest(jnp.asarray(a), n, where=jnp.asarray(where)))
        found = jax.jit(nth)(np.arange(50))
        np.testing.assert_array_equal(found, ordered)


@every_precision
def test_a_rank_for_every_row(dtype):
    a = np.random.default_rng(0).exponential(size=(4, 30)).round(1).astype(dtype)
    ranks = np.array([0, 7, 15, 29])
    with enable_x64(dtype == "float64"):
        found = nth_smallest(jnp.asarray(a), jnp.asarray(ranks))
    np.testing.assert_array_equal(found, np.sort(a)[np.arange(4), ranks])


def test_zero_of_either_sign_is_the_smallest():
    a = jnp.array([2.0, -0.0, jnp.inf, 0.0, 1.0])
    found = [nth_smallest(a, n).item() for n in range(6)]
    assert found == [0, 0, 1, 2, jnp.inf, jnp.inf]


def test_ranks_fall_and_ties_are_in_reading_order():
    scores = np.random.default_rng(0).integers(-2, 3, (3, 5, 6)).astype(np.float32)
    scores[scores == 0] *= np.random.default_rng(1).choice([-1, 1], (scores == 0).sum())
    expected = [sorted(range(30), key=lambda i, s=s: (-s[i], i)) for s in scores.reshape(3, -1)]
    ranks = np.asarray(descending(jnp.asarray(scores))).reshape(3, -1)
    np.testing.assert_array_equal(ranks.argsort(1), expected)
