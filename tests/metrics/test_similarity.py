"""Rank correlation and SSIM against scipy and scikit-image; boundary dependency and ROC AUC."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from precision import enable_x64

from jaxattr import metrics


def maps(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def tied(*shape, seed=0):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(float)


@pytest.mark.parametrize("draw", [maps, tied])
def test_rank_correlation_is_scipys(draw):
    a, b = draw(3, 13, 11), draw(3, 13, 11, seed=1)
    b += 0.5 * a if draw is maps else a
    with enable_x64(True):
        found = jax.jit(metrics.rank_correlation)(a, b)
        expected = [
            scipy.stats.spearmanr(x.ravel(), y.ravel())[0] for x, y in zip(a, b, strict=True)
        ]
        np.testing.assert_allclose(found.score, expected, rtol=1e-12)
    single = metrics.rank_correlation(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(single.score, expected, rtol=0, atol=1e-5)


def test_rank_correlation_of_large_maps_keeps_its_digits():
    a = maps(1, 224, 224).astype(np.float32)
    b = a + maps(1, 224, 224, seed=1).astype(np.float32)
    expected = scipy.stats.spearmanr(a.ravel(), b.ravel())[0]
    np.testing.assert_allclose(metrics.rank_correlation(a, b).score, expected, atol=1e-5)


def test_rank_correlation_reduces_channels_and_sees_signs_if_asked():
    a = maps(2, 6, 6, 3).astype(np.float32)
    np.testing.assert_allclose(metrics.rank_correlation(a, a.sum(-1)).score, 1, rtol=1e-5)
    np.testing.assert_allclose(metrics.rank_correlation(a, -a).score, -1, rtol=1e-5)
    magnitude = metrics.rank_correlation(a, -a, reduce=metrics.magnitude_sum)
    np.testing.assert_allclose(magnitude.score, 1, rtol=1e-5)


def test_constant_and_broken_maps_have_no_correlation():
    a = maps(3, 8, 8).astype(np.float32)
    b = maps(3, 8, 8, seed=1).astype(np.float32)
    a[0], b[1, 2, 2] = 7, np.nan
    found = metrics.rank_correlation(a, b)
    assert found.valid.tolist() == [False, False, True]
    assert np.isnan(found.score).tolist() == [True, True, False]
    assert jax.jit(metrics.ssim)(a, b).valid.tolist() == [True, False, True]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"attribution has shape \(1, 4, 5\)"):
        metrics.rank_correlation(maps(1, 5, 4), maps(1, 4, 5))


@pytest.mark.parametrize(
    ("gaussian", "sample", "offset"), [(False, True, 0), (True, False, 0), (False, True, 30)]
)
def test_ssim_is_scikit_images(gaussian, sample, offset):
    ssim = pytest.importorskip("skimage.metrics").structural_similarity
    a = maps(2, 17, 23) + offset
    b = a + 0.5 * maps(2, 17, 23, seed=1)
    window = metrics.gaussian_window() if gaussian else metrics.box_window()
    options = {"use_sample_covariance": sample, "gaussian_weights": gaussian}
    expected = [ssim(x, y, data_range=6.0, **options) for x, y in zip(a, b, strict=True)]
    ours = partial(metrics.ssim, data_range=6.0, weights=window, sample_covariance=sample)
    with enable_x64(True):
        np.testing.assert_allclose(jax.jit(ours)(a, b).score, expected, rtol=1e-10)
    single = jax.jit(ours)(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(single.score, expected, rtol=0, atol=1e-5)


def test_ssim_of_equal_maps_is_one_and_windows_must_fit():
    a = maps(1, 8, 8).astype(np.float32)
    np.testing.assert_allclose(jax.jit(metrics.ssim)(a, a).score, 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"window has 11 pixels, the maps have \(8, 8\)"):
        metrics.ssim(a, a, weights=metrics.gaussian_window())


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


def test_the_upper_half():
    score, valid = jnp.array([3.0, jnp.nan, 1.0, 2.0, 2.0, 2.0]), jnp.arange(6) != 1
    assert metrics.upper_half(score, valid).tolist() == [True, False, False, True, True, False]
