"""ROC AUC against the count of all pairs, and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxattr import metrics


def maps(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def tied(*shape, seed=0):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(float)


@pytest.mark.parametrize("draw", [maps, tied])
def test_roc_auc_counts_every_pair(draw):
    score, positive = draw(300), np.random.default_rng(2).random(300) < 0.3
    valid = np.random.default_rng(3).random(300) < 0.8
    score[~valid] = np.nan
    for kept in (valid, valid & (np.arange(300) < 20)):
        p, n = score[kept & positive][:, None], score[kept & ~positive]
        expected = ((p > n) + 0.5 * (p == n)).mean()
        found = jax.jit(metrics.roc_auc)(score.astype(np.float32), positive, valid=kept)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_roc_auc_of_a_large_sample_is_exact_to_rounding():
    score, positive = maps(30_000).astype(np.float32), np.random.default_rng(2).random(30_000)
    positive = positive < 0.5
    won = scipy.stats.mannwhitneyu(score[positive], score[~positive]).statistic
    expected = won / (positive.sum() * (~positive).sum())
    np.testing.assert_allclose(metrics.roc_auc(score, positive), expected, rtol=1e-5)


def test_roc_auc_needs_both_kinds_and_numbers():
    score, all_ = jnp.arange(3.0), jnp.ones(3, bool)
    assert np.isnan(metrics.roc_auc(score, all_))
    assert np.isnan(metrics.roc_auc(score, ~all_))
    unknown = score.at[1].set(jnp.nan)
    some = jnp.array([True, False, False])
    assert np.isnan(metrics.roc_auc(unknown, some))
    assert metrics.roc_auc(unknown, some, valid=~jnp.isnan(unknown)).item() == 0
    assert metrics.roc_auc(jnp.full(3, jnp.inf), some).item() == 0.5
