"""Interpolation: torch's values, and what holds of every way to resize."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import load
from peers import peer, relative_error
from precision import enable_x64

from jaxattr import maps
from jaxattr.image.resize import inside, resize, resize_aligned, resize_cubic, resize_each

SIZES = [(7, 40), (40, 7), (1, 1), (19, 24)]
TORCH = {
    resize: {"mode": "bilinear", "align_corners": False},
    resize_aligned: {"mode": "bilinear", "align_corners": True},
    resize_cubic: {"mode": "bicubic", "align_corners": False},
}
every_way = pytest.mark.parametrize("way", TORCH)


@pytest.mark.parametrize("size", SIZES)
@every_way
def test_resizing_is_torchs(torch, way, size):
    a = np.random.default_rng(0).normal(size=(2, 19, 24, 3))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(a).permute(0, 3, 1, 2), size=size, **TORCH[way]
    )
    with enable_x64(True):
        found = way(jnp.asarray(a), size)
    assert relative_error(found, theirs.permute(0, 2, 3, 1).numpy()) < 1e-12


def test_cubic_enlarging_is_torchs():
    with enable_x64(True):
        x = load("resnet", "float64").x[:2, :18, :18]
        assert relative_error(resize_cubic(x, (35, 35)), peer("cameras")["bicubic"]) < 1e-12


@every_way
def test_a_constant_stays_and_channels_do_not_mix(way):
    with enable_x64(True):
        a = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 3)))
        found = way(a, (9, 8))
        for c in range(3):
            np.testing.assert_allclose(found[..., c], way(a[..., c], (9, 8)), rtol=1e-12)
        np.testing.assert_allclose(way(jnp.full((1, 5, 4), 3.7), (9, 3)), 3.7, rtol=1e-12)
        np.testing.assert_allclose(way(a, (5, 4)), a, rtol=1e-12)


@every_way
def test_maps_offer_what_resizes_them(way):
    assert getattr(maps, way.__name__) is way


def test_each_to_its_own_size():
    a, sizes = jnp.arange(24.0).reshape(2, 3, 4), jnp.array([[6, 5], [2, 7]])
    found = np.asarray(jax.jit(lambda a, sizes: resize_each(a, (6, 7), sizes))(a, sizes))
    image = np.asarray(inside((6, 7), sizes))
    for i, (height, width) in enumerate(sizes.tolist()):
        own = resize(a[i : i + 1], (height, width))[0]
        np.testing.assert_allclose(found[i, :height, :width], own, rtol=1e-5)
        assert image[i].sum() == height * width
        assert image[i, :height, :width].all()
