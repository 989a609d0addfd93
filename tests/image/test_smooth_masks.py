"""Smooth masks and the penalty on their area, against definitions written out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from precision import enable_x64
from speed import mostly_slow

from jaxattr.image.smooth_masks import area_penalty, smooth_mask

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("spacing", "sigma"), [(4, 8), (3, 4.5), (1, 2.5), (5, 3)], ids=lambda v: str(v)
)
def test_smooth_masks_are_smooth_maxima_of_kernels(spacing, sigma):
    """Pixel by pixel, in float64: beyond the image parameters are 0, but there."""
    height, width = 16, 11
    parameters = np.random.default_rng(0).uniform(
        size=(-(-height // spacing), -(-width // spacing))
    )
    with enable_x64(True):
        mask, canvas = smooth_mask(
            jnp.asarray(parameters), (height, width), spacing=spacing, sigma=sigma
        )
    margin, radius = int(np.ceil(sigma)), 1 + int(np.ceil(sigma / spacing))
    expected = np.empty(canvas.shape)
    for u, v in np.ndindex(*canvas.shape):
        u_, v_ = u - margin, v - margin
        terms = []
        for i in range(u_ // spacing - radius, u_ // spacing + radius + 1):
            for j in range(v_ // spacing - radius, v_ // spacing + radius + 1):
                there = 0 <= i < parameters.shape[0] and 0 <= j < parameters.shape[1]
                z = np.hypot(u_ - spacing * i, v_ - spacing * j) / sigma
                terms.append(there and parameters[i, j] * np.exp(-2 * max(z - 0.5, 0) ** 2))
        terms = np.array(terms, float)
        expected[u, v] = (terms * np.exp(20 * terms)).sum() / np.exp(20 * terms).sum()
    np.testing.assert_allclose(canvas, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        mask, expected[margin : margin + height, margin : margin + width], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("spacing", "sigma"), mostly_slow([(2, 2.0), (12, 2.0), (2, 9.0)], [(2, 2.0)])
)
def test_smooth_masks_have_their_own_derivatives(spacing, sigma):
    with enable_x64(True):
        parameters = jax.random.uniform(KEY, (2, 3, 3), jnp.float64)
        size = 3 * spacing, 3 * spacing - 1
        draw = jax.jit(lambda p: smooth_mask(p, size, spacing=spacing, sigma=sigma))
        check_grads(draw, (parameters,), order=2, modes=["rev"], rtol=1e-4)


@pytest.mark.parametrize(("spacing", "sigma"), [(2, 9.0), (12, 2.0)])
def test_programs_of_wide_kernels_and_wide_grids_stay_small(spacing, sigma):
    """Spelled out they have thousands of exponentials, and compile for minutes."""
    draw = jax.grad(lambda p: smooth_mask(p, (24, 24), spacing=spacing, sigma=sigma)[0].sum())
    text = jax.jit(draw).lower(jnp.ones((1, 24 // spacing, 24 // spacing))).as_text()
    assert text.count("stablehlo.exponential") <= 150


def test_area_penalty_is_the_distance_of_sorted_pixels():
    areas, n = (0.1, 0.35), 60
    rng = np.random.default_rng(0)
    references = np.stack([np.arange(n) >= int(n * (1 - a)) for a in areas])
    with enable_x64(True):
        distinct = jnp.asarray(rng.permuted(np.linspace(0, 1, 6 * n)).reshape(3, 2, n))
        sorted_ = lambda m: ((jnp.sort(m) - references) ** 2).mean(-1)
        for masks in (distinct, jnp.round(4 * distinct) / 4):  # without ties and with many
            both = jax.jit(lambda m: (area_penalty(m, areas), sorted_(m)))(masks)
            np.testing.assert_allclose(*both, rtol=1e-12)
        gradients = [
            jax.jit(jax.grad(lambda m, g=g: g(m).sum()))(distinct)
            for g in (sorted_, partial(area_penalty, areas=areas))
        ]
        np.testing.assert_allclose(*gradients, atol=1e-12)


def test_equal_pixels_are_pulled_alike():
    """The penalty's derivative is its mean over the orders in which equal pixels could stand."""
    gradient = jax.grad(lambda m: area_penalty(m, [0.25])[0])(jnp.full((1, 8), 0.5))
    np.testing.assert_allclose(gradient, 2 * (0.5 - 0.25) / 8)
