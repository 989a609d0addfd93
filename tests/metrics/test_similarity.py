"""Rank correlation and SSIM against scipy and scikit-image."""

from functools import partial

import jax
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
