"""Masks made of grids."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from precision import enable_x64
from speed import mostly_slow

from jaxattr.image.masks import blurred_grid, grid_mask

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("size", "cells"), mostly_slow([((16, 18), 5), ((21, 50), 7), ((3, 4), 6)], [((16, 18), 5)])
)
def test_grid_masks(size, cells):
    """A grid enlarged as by the authors' `skimage.transform.resize(mode="reflect")` and cropped."""
    cell = [-(-n // cells) for n in size]
    with enable_x64(True):
        mask = grid_mask(KEY, size, cells=cells, probability=0.5, dtype=jnp.float64)
        ours, *places = jax.random.split(KEY, 3)
        grid = np.asarray(jax.random.bernoulli(ours, 0.5, (cells, cells)), float)
        offset = [int(jax.random.randint(k, (), 0, c)) for k, c in zip(places, cell, strict=True)]
    at = [
        (np.arange(n) + o + 0.5) * cells / ((cells + 1) * c) - 0.5
        for n, o, c in zip(size, offset, cell, strict=True)
    ]
    at = np.meshgrid(*at, indexing="ij")
    expected = scipy.ndimage.map_coordinates(grid, at, order=1, mode="mirror")
    np.testing.assert_allclose(mask, expected, atol=1e-12)


def test_every_pixel_of_a_grid_mask_has_the_same_mean():
    draw = partial(grid_mask, size=(16, 18), cells=5, probability=0.3, dtype=jnp.float32)
    mean = jax.vmap(draw)(jax.random.split(KEY, 20_000)).mean(0)
    np.testing.assert_allclose(mean, 0.3, atol=5 * 0.46 / 20_000**0.5)  # five standard deviations


def test_blurred_grid_is_blurred_squares():
    grid = np.random.default_rng(0).uniform(size=(2, 4, 5))
    with enable_x64(True):
        a = blurred_grid(jnp.asarray(grid), (10, 15), spacing=3, sigma=2.0)
    squares = np.kron(grid, np.ones((3, 3)))[:, :10]
    expected = scipy.ndimage.gaussian_filter(squares, (0, 2, 2), mode="nearest", truncate=4)
    np.testing.assert_allclose(a, expected, rtol=1e-9)
