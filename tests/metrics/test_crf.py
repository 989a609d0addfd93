"""Regions refined by a fully connected CRF."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics

HEIGHT, WIDTH = 14, 18


@pytest.fixture
def installed():
    pytest.importorskip("pydensecrf", reason="dense CRFs need the extra 'crf'")


def scene(
    seed: int = 0, noise: float = 0.15, contrast: int = 80
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a red square on blue, where the square is, and a map with part of its signs wrong."""
    rng = np.random.default_rng(seed)
    thing = np.zeros((1, HEIGHT, WIDTH), bool)
    thing[:, 3:10, 4:13] = True
    image = 120 + contrast * np.where(thing[..., None], [1, 0, -1], [-1, 0, 1])
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    wrong = rng.random(thing.shape) < noise
    return image, thing, np.where(thing ^ wrong, 1.0, -1.0).astype(np.float32)


def written_out(
    image, a, *, w1, theta_alpha, theta_beta, w2, theta_gamma, certainty, steps
) -> np.ndarray:
    """Infer the mean field with a matrix of all pairs: `q(object) - q(background)`."""
    at = np.stack(np.mgrid[:HEIGHT, :WIDTH], -1).reshape(-1, 2).astype(float)
    color = image.reshape(-1, 3).astype(float)
    far, unlike = (((a[:, None] - a) ** 2).sum(-1) for a in (at, color))
    pairs = 0.0
    for w, k in (
        (w1, np.exp(-far / theta_alpha**2 / 2 - unlike / theta_beta**2 / 2)),
        (w2, np.exp(-far / theta_gamma**2 / 2)),
    ):
        root = np.sqrt(k.sum(1))
        pairs = pairs + w * k / root[:, None] / root
    c = np.where(np.isinf(a), 0.5, np.where(a > 0, certainty, 1 - certainty)).ravel()
    unary = np.log([1 - c, c])
    q = np.exp(unary)
    for _ in range(steps):
        q = np.exp(unary + q @ pairs)
        q /= q.sum(0)
    return (q[1] - q[0]).reshape(HEIGHT, WIDTH)


OPTIONS = {"theta_alpha": 8.0, "theta_beta": 20.0, "theta_gamma": 1.5, "certainty": 0.6, "steps": 5}


@pytest.mark.parametrize("weights", [(2.0, 1.0), (1.0, 3.0), (0.0, 4.0)])
@pytest.mark.parametrize("contrast", [10, 80])
@pytest.mark.parametrize("seed", range(3))
def test_is_the_mean_field_of_all_pairs(installed, weights, contrast, seed):
    image, _, a = scene(seed, noise=0.3, contrast=contrast)
    a[:, 5], a[:, :, 15] = -np.inf, -np.inf  # these do not count
    options = {**OPTIONS, "w1": weights[0], "w2": weights[1]}
    found = jax.jit(metrics.dense_crf(image, **options))(a)[0]
    expected = written_out(image[0], a[0], **options)
    assert (found != (a[0] > 0)).sum() > 60
    # the library sums over neighbors on a lattice: what hangs in the balance may fall otherwise
    decided = np.abs(expected) > 0.1
    assert decided.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(found)[decided], expected[decided] > 0)


def test_without_pairs_it_is_the_region(installed):
    image, _, a = scene(noise=0.3)
    a = a * np.linspace(0.5, 1.5, WIDTH, dtype=np.float32)
    alone = metrics.dense_crf(image, region=metrics.above_mean_region, w1=0.0, w2=0.0)
    np.testing.assert_array_equal(alone(a), metrics.above_mean_region(a))


def test_borders_follow_the_colors_under_jit_too(installed):
    image, thing, a = scene()
    before = metrics.segmentation_iou(a, thing)
    refined = lambda a, image: metrics.segmentation_iou(a, thing, region=metrics.dense_crf(image))
    assert before.score.item() < 0.8
    for after in (refined(a, image), jax.jit(refined)(a, image)):
        assert after.score.item() == after.background.item() == 1


def test_what_is_filled_up_plays_no_part(installed):
    images, _, maps = map(np.concatenate, zip(*(scene(seed, 0.3) for seed in (0, 1)), strict=True))
    options = {**OPTIONS, "w1": 2.0, "w2": 1.0}
    there = np.ones(maps.shape, bool)
    there[1, 10:], there[1, :, 15:] = False, False
    marked = jax.jit(metrics.dense_crf(images, **options))(jnp.where(there, maps, -jnp.inf))
    assert not marked[~there].any()
    first = jax.jit(metrics.dense_crf(images[:1], **options))(maps[:1])[0]
    np.testing.assert_array_equal(marked[0], first)
    second = jax.jit(metrics.dense_crf(images[1:, :10, :15], **options))(maps[1:, :10, :15])[0]
    np.testing.assert_array_equal(marked[1, :10, :15], second)


def test_pixels_that_do_not_count_follow_the_others(installed):
    image, thing, _ = scene()
    void = np.zeros_like(thing)
    void[:, 5:8, 6:10] = True
    scores = jnp.where(void, -jnp.inf, jnp.where(thing, 1.0, -1.0))
    np.testing.assert_array_equal(jax.jit(metrics.dense_crf(image))(scores), thing)


def test_says_what_is_wrong(installed):
    image, _, a = scene()
    with pytest.raises(ValueError, match=r"certainty is 1\.0"):
        metrics.dense_crf(image, certainty=1.0)
    for name in ("theta_alpha", "theta_beta", "theta_gamma"):
        with pytest.raises(ValueError, match=f"{name} is 0; expected more than 0"):
            metrics.dense_crf(image, **{name: 0})
    for name in ("w1", "w2"):
        with pytest.raises(ValueError, match=f"{name} is -1; expected 0 or more"):
            metrics.dense_crf(image, **{name: -1})
    with pytest.raises(ValueError, match="steps is 0"):
        metrics.dense_crf(image, steps=0)
    with pytest.raises(ValueError, match=r"images have shape \(1, 14, 18, 3\) and dtype float64"):
        metrics.dense_crf(image / 255)(a)
    with pytest.raises(ValueError, match=r"expected uint8 \(1, 14, 17, 3\)"):
        metrics.dense_crf(image)(a[:, :, 1:])


def test_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ModuleNotFoundError, match=r"jaxattr\[crf\]"):
        metrics.dense_crf(scene()[0])
