"""Pointing games and intersections over union."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics
from jaxattr.image.maps import resize


def dot(row, column, shape=(40, 40)):
    return jnp.zeros((1, *shape)).at[0, row, column].set(1)


CORNER = dot(0, 0).astype(bool)


def test_a_hit_is_less_than_15_pixels_away():
    points = [(5, 14), (14, 5), (11, 10), (0, 14), (0, 15), (15, 0), (12, 9), (9, 12)]
    maps, masks = jnp.concatenate([dot(*p) for p in points]), jnp.tile(CORNER, (8, 1, 1))
    hits = [1, 1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_array_equal(metrics.pointing_game(maps, masks).score, hits)
    np.testing.assert_array_equal(metrics.point_hits(jnp.array(points), masks).score, hits)


def test_no_tolerance_never_hits_and_a_little_hits_the_pixel_itself():
    assert metrics.pointing_game(dot(0, 0), CORNER, tolerance=0).score.item() == 0
    assert metrics.pointing_game(dot(0, 0), CORNER, tolerance=0.5).score.item() == 1
    assert metrics.pointing_game(dot(0, 1), CORNER, tolerance=1).score.item() == 0


def test_points_between_pixels():
    mask = dot(10, 10).astype(bool)
    at = lambda r, c: metrics.point_hits(jnp.array([[r, c]]), mask, tolerance=1.5).score.item()
    assert at(10.5, 11.25) == 1
    assert at(11.5, 10.0) == 0


def test_the_nearest_pixel_of_a_mask_counts():
    rng = np.random.default_rng(0)
    masks, points = rng.random((50, 30, 20)) > 0.998, rng.integers(0, 20, (50, 2))
    found = metrics.point_hits(jnp.asarray(points), jnp.asarray(masks), tolerance=7)
    for mask, point, score in zip(masks, points, np.asarray(found.score), strict=True):
        distances = [((pixel - point) ** 2).sum() for pixel in np.argwhere(mask)]
        np.testing.assert_array_equal(score, min(distances) < 49 if distances else np.nan)
    np.testing.assert_array_equal(found.valid, masks.any((1, 2)))


def test_the_first_maximum_in_reading_order_counts():
    mask = dot(0, 39).astype(bool)
    assert metrics.pointing_game(jnp.zeros((1, 40, 40)), mask).score.item() == 0
    assert metrics.pointing_game(jnp.zeros((1, 40, 40)), CORNER).score.item() == 1
    both = dot(3, 39) + dot(4, 0)
    assert metrics.pointing_game(both, mask, tolerance=5).score.item() == 1


def test_maps_are_resized_to_the_image_first():
    coarse = jnp.zeros((1, 4, 4)).at[0, 3, 0].set(1)
    mask = dot(99, 0, (100, 50)).astype(bool)
    assert metrics.pointing_game(coarse, mask, tolerance=14).score.item() == 1  # of row 87
    assert metrics.pointing_game(coarse, mask, tolerance=12).score.item() == 0


def test_images_of_several_sizes_fit_one_batch():
    rng = np.random.default_rng(1)
    sizes = [(31, 47), (7, 40)]
    maps = jnp.asarray(rng.normal(size=(2, 20, 9)), jnp.float32)
    masks = np.zeros((2, 31, 50), bool)
    for mask, (h, w) in zip(masks, sizes, strict=True):
        mask[:h, :w] = rng.random((h, w)) > 0.97
    sizes_, masks = jnp.array(sizes), jnp.asarray(masks)
    games = [
        lambda *a, **k: metrics.pointing_game(*a, tolerance=3, **k).score,
        lambda *a, **k: metrics.energy_pointing_game(*a, **k).score,
        lambda *a, **k: metrics.localization_iou(*a, **k).score,
        lambda *a, **k: (
            metrics.segmentation_iou(*a, region=metrics.above_mean_region, **k).background
        ),
    ]
    play = jax.jit(lambda a, m, s=None: [game(a, m, sizes=s) for game in games])
    together = play(maps, masks, sizes_)
    for i, (h, w) in enumerate(sizes):
        alone = play(maps[i : i + 1], masks[i : i + 1, :h, :w])
        np.testing.assert_allclose([t[i] for t in together], [a[0] for a in alone], rtol=1e-5)


def test_one_map_resized_by_hand():
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 9)), jnp.float32)
    mask = jnp.asarray(np.random.default_rng(1).random((1, 33, 21)) > 0.7)
    inside = jnp.maximum(resize(maps, (33, 21)), 0)
    np.testing.assert_allclose(
        metrics.energy_pointing_game(maps, mask).score[0],
        (inside * mask).sum() / inside.sum(),
        rtol=1e-5,
    )


NOTHING = jnp.zeros((1, 40, 40), bool)


@pytest.mark.parametrize(
    "game",
    [
        metrics.pointing_game,
        metrics.energy_pointing_game,
        metrics.localization_iou,
        metrics.segmentation_iou,
    ],
)
def test_no_ground_truth_and_no_map_have_no_score(game):
    maps = jnp.concatenate([dot(1, 1), dot(1, 1), dot(2, 2).at[0, 5, 5].set(jnp.nan)])
    found = game(maps, jnp.concatenate([CORNER, NOTHING, CORNER]))
    assert found.valid.tolist() == [True, False, False]
    assert np.isnan(found.score).tolist() == [False, True, True]
    assert metrics.mean(found.score, found.valid).number == 1


def test_energy_of_a_uniform_map_is_the_share_of_the_box():
    mask = jnp.zeros((1, 40, 40), bool).at[0, 5:13, 10:20].set(True)
    found = metrics.energy_pointing_game(jnp.ones((1, 40, 40, 3)), mask)
    np.testing.assert_allclose(found.score, 8 * 10 / 1600, rtol=1e-6)
    assert metrics.energy_pointing_game(mask * 2.0, mask).score.item() == 1


def test_energy_is_of_positive_attribution_by_rows_and_columns():
    mask = jnp.zeros((1, 4, 6), bool).at[0, 0, 4:].set(True)
    maps = jnp.zeros((1, 4, 6)).at[0, 0, 5].set(3).at[0, 3, 0].set(1).at[0, 2, 2].set(-9)
    assert metrics.energy_pointing_game(maps, mask).score.item() == 0.75
    assert metrics.energy_pointing_game(maps, mask, reduce=metrics.magnitude_sum).score < 0.25


def test_signed_energy_is_a_share_of_the_sum():
    """Equation 11 of TR-GBP: 3 in the mask, of 3 - 1; padding counts for nothing."""
    maps = jnp.array([[[3.0, -1.0, 0.0, 0.0]]])
    mask = jnp.array([[[True, False, False, False]]])
    share = jax.jit(
        lambda sizes: metrics.energy_pointing_game(maps, mask, sizes=sizes, signed=True)
    )
    for sizes in (None, jnp.array([[1, 4]])):
        np.testing.assert_allclose(share(sizes).score, 1.5, rtol=1e-6)


def test_energy_leaves_out_large_objects_and_maps_without_evidence():
    half = jnp.zeros((1, 4, 4), bool).at[0, :2].set(True)
    assert metrics.energy_pointing_game(jnp.ones((1, 4, 4)), half).valid.item()
    assert not metrics.energy_pointing_game(jnp.ones((1, 4, 4)), half, cover=0.4).valid.item()
    more = half.at[0, 2, 0].set(True)
    assert not metrics.energy_pointing_game(jnp.ones((1, 4, 4)), more).valid.item()
    assert not metrics.energy_pointing_game(-jnp.ones((1, 4, 4)), half).valid.item()


def test_iou_with_and_without_threshold():
    mask = jnp.zeros((1, 2, 4), bool).at[0, :, :2].set(True)
    maps = jnp.array([[[5.0, 1.0, 2.0, -7.0], [6.0, 1.0, 0.0, -7.0]]])
    plain = metrics.localization_iou(maps, mask)
    above = metrics.localization_iou(maps, mask, region=metrics.above_mean_region)  # of 3
    np.testing.assert_allclose([plain.score[0], above.score[0]], [4 / 5, 2 / 4], rtol=1e-6)


def test_iou_where_nothing_is_marked_is_zero():
    for region in (metrics.positive_region, metrics.above_mean_region):
        found = metrics.localization_iou(-dot(0, 0), CORNER, region=region)
        assert found.valid.item()
        assert found.score.item() == 0


def test_void_pixels_do_not_count():
    mask = jnp.array([[[True, True, False, False, False]]])
    void = jnp.array([[[False, True, True, False, False]]])
    maps = jnp.array([[[1.0, 1.0, 9.0, 1.0, -1.0]]])
    found = metrics.segmentation_iou(maps, mask, void=void)
    np.testing.assert_allclose([found.score[0], found.background[0]], [1 / 2, 1 / 2])
    above = metrics.segmentation_iou(maps, mask, void=void, region=lambda s: s >= s.max())
    np.testing.assert_allclose(above.score[0], 1 / 2)  # void is not the maximum
    assert not metrics.segmentation_iou(maps, mask, void=mask).valid.item()


def test_masks_must_be_boolean_and_as_many_as_maps():
    with pytest.raises(ValueError, match=r"mask has shape \(1, 40, 40\) and dtype float32"):
        metrics.pointing_game(dot(0, 0), dot(0, 0))
    with pytest.raises(ValueError, match=r"expected bool \(1, height, width\)"):
        metrics.localization_iou(dot(0, 0), jnp.zeros((2, 40, 40), bool))
