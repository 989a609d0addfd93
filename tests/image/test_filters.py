"""Filters: SciPy's values for every border, and what a kernel and its matrix promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from precision import enable_x64

from jaxattr import maps
from jaxattr.image.filters import (
    ceiling_reach,
    edge,
    filter_matrix,
    gaussian,
    gaussian_blur,
    inner_matrix,
    reflect,
    rounded_reach,
    toeplitz,
    zero,
)

SCIPY = {edge: "nearest", reflect: "reflect", zero: "constant"}
every_border = pytest.mark.parametrize("border", SCIPY)


@every_border
@pytest.mark.parametrize("reach", [rounded_reach, ceiling_reach])
@pytest.mark.parametrize("sigma", [0.1, 0.8, 3.0, 20.0])
def test_gaussian_blur_is_scipys(border, reach, sigma):
    x = np.random.default_rng(0).normal(size=(2, 9, 14, 3))
    with enable_x64(True):
        a = gaussian_blur(jnp.asarray(x), sigma, border=border, reach=reach)
    expected = scipy.ndimage.gaussian_filter(
        x, (0, sigma, sigma, 0), mode=SCIPY[border], radius=reach(sigma)
    )
    np.testing.assert_allclose(a, expected, rtol=1e-9, atol=1e-12)
    single = gaussian_blur(jnp.asarray(x, jnp.float32), sigma, border=border, reach=reach)
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 9, 14), (2, 9, 14, 3)])
def test_maps_are_blurred_as_by_scipy(shape):
    """By default edges are repeated and the reach is SciPy's, for maps with channels or without."""
    a = np.random.default_rng(0).normal(size=shape)
    with enable_x64(True):
        blurred = maps.gaussian_blur(jnp.asarray(a), 1.3)
    sigmas = (0, 1.3, 1.3, 0)[: len(shape)]
    expected = scipy.ndimage.gaussian_filter(a, sigmas, mode="nearest")
    np.testing.assert_allclose(blurred, expected, rtol=1e-9, atol=1e-12)


@every_border
def test_no_sigma_changes_nothing_and_a_negative_one_is_refused(border):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 4, 2)), jnp.float32)
    np.testing.assert_array_equal(gaussian_blur(x, 0.0, border=border), x)
    for sigma in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"sigma is {sigma}"):
            gaussian_blur(x, sigma, border=border)


@pytest.mark.parametrize("border", [edge, reflect])
def test_a_constant_stays(border):
    with enable_x64(True):
        x = jnp.full((1, 7, 5, 2), 3.7)
        np.testing.assert_allclose(gaussian_blur(x, 4.0, border=border), x, rtol=1e-12)


def test_zeros_around_darken_the_border():
    ones = gaussian_blur(jnp.ones((1, 41, 41, 1)), 2.0, border=zero)
    assert ones[0, 0, 0, 0] < 0.4
    np.testing.assert_allclose(ones[0, 20, 20, 0], 1, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0, 0.3, 2.5])
def test_weights_sum_to_one_and_are_symmetric(sigma):
    weights = gaussian(sigma, 6)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    np.testing.assert_array_equal(weights, weights[::-1])
    assert gaussian(sigma, rounded_reach(0.0)).tolist() == [1]


def test_reaches_are_rounded_or_rounded_up():
    assert [rounded_reach(s) for s in (0, 0.1, 0.8, 1.5)] == [0, 0, 3, 6]
    assert [ceiling_reach(s) for s in (0, 0.1, 0.8, 1.5)] == [0, 1, 4, 6]
    assert rounded_reach(1.5, truncate=3.5) == 5


@every_border
@pytest.mark.parametrize("length", [1, 3, 7, 8])
def test_a_matrix_is_the_filter_written_out(border, length):
    """A sum over the kernel at every pixel, also where it is longer than the axis."""
    rng = np.random.default_rng(0)
    kernel, a = rng.normal(size=length), rng.normal(size=5)
    expected = np.zeros(5)
    for i in range(5):
        for k, weight in enumerate(kernel):
            place = int(border(np.array([i + k - length // 2]), 5)[0])
            expected[i] += weight * (a[place] if place >= 0 else 0)
    np.testing.assert_allclose(filter_matrix(kernel, 5, border) @ a, expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_inner_matrix_is_a_correlation_without_border(length):
    rng = np.random.default_rng(0)
    kernel, a = rng.normal(size=length), rng.normal(size=9)
    expected = np.correlate(a, kernel, mode="valid")
    np.testing.assert_allclose(inner_matrix(kernel, 9) @ a, expected, rtol=1e-12)


@pytest.mark.parametrize("pixels", [4, 6])
def test_a_toeplitz_matrix_is_that_of_the_zero_border(pixels):
    kernel = np.random.default_rng(0).normal(size=11)
    found = jax.jit(lambda kernel: toeplitz(kernel, pixels))(kernel)
    np.testing.assert_allclose(found, filter_matrix(kernel, pixels, zero), rtol=1e-6)
