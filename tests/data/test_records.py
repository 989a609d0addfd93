"""Records, and the geometry of their ground truth."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxattr import metrics
from jaxattr.data import Geometry, class_mask, record
from jaxattr.models.preprocess import PlainResize, Preprocess

BLANK = np.zeros((8, 10, 3), np.uint8)


def test_a_record_has_each_class_once():
    found = record("a", BLANK, labels=[5], boxes=[[0, 0, 3, 4], [2, 2, 4, 4]], box_labels=[2, 2])
    assert found.labels.tolist() == [2, 5]
    mask = class_mask(found, 2)
    assert mask.sum() == 14
    assert not class_mask(found, 5).any()
    segmented = found._replace(masks=np.stack([~mask, mask]))
    np.testing.assert_array_equal(class_mask(segmented, 5), mask)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"boxes": [[3, 3, 1, 1]], "box_labels": [0]}, r"'a' has a box \[3, 3, 1, 1\]"),
        ({"boxes": [[9, 0, 12, 4]], "box_labels": [0]}, "without a pixel of its image of 8 x 10"),
        ({"boxes": [[0, 0, 1, 1]]}, r"`box_labels` of 'a' has shape \(0,\), but \(1,\)"),
        ({"labels": [1], "masks": np.zeros((2, 8, 10), bool)}, "`masks` of 'a' has shape"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "float32 of shape"),
    ],
)
def test_what_does_not_fit_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        record("a", **{"image": BLANK, **parts})


SIZES = [(375, 500), (37, 23), (224, 224)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prepare", [Preprocess(40, 32), Preprocess(20, 32), PlainResize(24)])
def test_boxes_and_masks_go_where_the_pixels_go(size, prepare):
    rng = np.random.default_rng(0)
    corners = [np.sort(rng.integers(0, n + 1, (2, 40)), 0) for n in size]
    boxes = np.stack([corners[0][0], corners[1][0], corners[0][1], corners[1][1]], 1)
    boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)]
    geometry = prepare.geometry(size)
    masks = np.stack([metrics.box_masks(b[None], size) for b in boxes])
    moved = np.stack(
        [metrics.box_masks(b[None], geometry.input_size) for b in geometry.boxes(boxes)]
    )
    np.testing.assert_array_equal(geometry.mask(masks), moved)
    # a photograph that is white in a box is bright where the mask is, but for a pixel at its edge
    big = np.argmax(masks.sum((1, 2)))
    white = Image.fromarray(255 * masks[big].astype(np.uint8))
    seen = np.asarray(prepare.display(white))[..., 0]
    assert seen.shape == geometry.input_size
    wrong = (seen > 127) != moved[big]
    assert wrong.mean() < 0.04


@pytest.mark.parametrize("size", SIZES)
def test_maps_come_back_to_their_pixels(size):
    prepare = Preprocess(40, 32)
    geometry = prepare.geometry(size)
    across = np.broadcast_to(np.arange(32) + 0.5, (32, 32))
    back = geometry.to_photograph(np.stack([across, across.T]))
    assert back.shape == (2, *size)
    r, c = (np.arange(n) + 0.5 for n in size)
    assert geometry.mask(np.ones(size, bool)).all()
    r0, c0, r1, c1 = geometry.visible
    shown = np.argwhere(back[0])  # by the pixels whose centers the input shows
    np.testing.assert_allclose([r0, c0, r1 - 1, c1 - 1], [*shown.min(0), *shown.max(0)], atol=1)
    down = (r * geometry.scale[0] + geometry.offset[0])[:, None]
    right = (c * geometry.scale[1] + geometry.offset[1])[None]
    inside = (down >= 0) & (down <= 32) & (right >= 0) & (right <= 32)
    np.testing.assert_allclose(back[0], np.where(inside, np.clip(right, 0.5, 31.5), 0), atol=1e-9)
    np.testing.assert_allclose(back[1], np.where(inside, np.clip(down, 0.5, 31.5), 0), atol=1e-9)


def test_a_plain_resize_agrees_with_jax():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    ours = PlainResize(22)(Image.fromarray(pixels))
    resized = jax.image.resize(pixels / np.float32(255), (22, 29, 3), "bilinear", antialias=False)
    theirs = 255 * (resized - np.array([123.68, 116.779, 103.939], np.float32) / 255)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_resize_without_a_crop_agrees_with_metrics():
    maps = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    geometry = Geometry.resized((20, 30), (7, 5), None)
    ours = geometry.to_photograph(maps)
    theirs = jax.image.resize(maps, (2, 20, 30), "bilinear")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
