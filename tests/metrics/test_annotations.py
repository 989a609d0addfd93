"""Annotations of VOC and COCO, and pointing at the center of every image of VOC2007."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics
from jaxattr.metrics import annotations


def xml(size, *objects):
    found = "".join(
        f"<object><name>{label}</name><difficult>{flag}</difficult><part><name>head</name>"
        "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
        f"<bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymin>{y0}</ymin><ymax>{y1}</ymax></bndbox>"
        "</object>"
        for label, flag, x0, y0, x1, y1 in objects
    )
    height, width = size
    shape = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{shape}{found}</annotation>"


def test_boxes_start_at_one_and_include_their_end():
    found = metrics.voc_annotation(xml((20, 30), ("cat", 0, 1, 2, 30, 20), ("cat", 1, 5, 5, 5, 5)))
    assert found.size == (20, 30)
    (cat,) = found.objects
    np.testing.assert_array_equal(cat.boxes, [[1, 0, 20, 30], [4, 4, 5, 5]])
    mask = metrics.box_masks(cat.boxes, found.size)
    assert mask.sum() == 19 * 30
    assert not mask[0].any()


def test_a_class_counts_unless_all_its_boxes_are_flagged():
    found = metrics.voc_annotation(
        xml((9, 9), ("cat", 1, 1, 1, 2, 2), ("dog", 1, 1, 1, 2, 2), ("cat", 0, 3, 3, 4, 4))
    )
    cat, dog = found.objects
    assert (cat.label, cat.counts, len(cat.boxes)) == ("cat", True, 2)
    assert (dog.label, dog.counts, dog.difficult) == ("dog", False, False)
    assert not cat.difficult  # the dog is no example


@pytest.mark.parametrize(
    ("others", "end", "difficult"),
    [
        ([("dog", 0, 1, 1, 1, 1)], 5, False),  # 25 of 100 pixels are a quarter
        ([("dog", 0, 1, 1, 1, 1)], 4, True),
        ([("dog", 0, 1, 1, 1, 1), ("cat", 0, 1, 1, 5, 4)], 4, True),  # they overlap
        ([("dog", 0, 1, 1, 1, 1), ("cat", 1, 5, 5, 7, 9)], 4, False),  # flagged boxes count too
        ([("cat", 0, 1, 1, 1, 1)], 4, False),
        ([], 4, False),
    ],
)
def test_difficult_is_small_and_in_company(others, end, difficult):
    found = metrics.voc_annotation(xml((10, 10), ("cat", 0, 1, 1, 5, end), *others))
    assert found.objects[0].difficult == difficult


def test_the_area_of_a_union_is_that_of_its_mask():
    rng = np.random.default_rng(0)
    for number in (1, 2, 5, 9):
        first = rng.integers(0, 12, (number, 2))
        boxes = np.hstack([first, first + rng.integers(1, 8, (number, 2))])
        assert annotations._area(boxes) == metrics.box_masks(boxes, (20, 20)).sum()


def test_what_is_no_annotation_is_refused():
    with pytest.raises(
        ValueError, match="not an annotation of PASCAL VOC: there is no size/height"
    ):
        metrics.voc_annotation("<annotation></annotation>")
    with pytest.raises(ValueError, match="not an annotation of PASCAL VOC: unclosed token"):
        metrics.voc_annotation("<annotation")


def test_masks_of_boxes_by_numpy_and_jax():
    boxes = np.array([[[0, 1, 2, 3], [1, 1, 4, 2]], [[0, 0, 0, 0], [3, 0, 9, 9]]])
    ours = metrics.box_masks(boxes, (4, 5))
    assert isinstance(ours, np.ndarray)
    by_hand = np.zeros((2, 4, 5), bool)
    by_hand[0, 0:2, 1:3] = by_hand[0, 1:4, 1:2] = by_hand[1, 3:] = True
    np.testing.assert_array_equal(ours, by_hand)
    jitted = jax.jit(metrics.box_masks, static_argnums=1)(jnp.asarray(boxes), (4, 5))
    np.testing.assert_array_equal(jitted, by_hand)


def test_boxes_of_coco_cover_every_pixel_they_touch():
    found = metrics.coco_boxes(
        [
            {"category_id": 3, "bbox": [1.5, 2.0, 3.0, 4.0]},
            {"category_id": 7, "bbox": [0, 0, 1, 1]},
            {"category_id": 3, "bbox": [10.2, 0, 0.5, 1]},
        ]
    )
    np.testing.assert_array_equal(found[3], [[2, 1, 6, 5], [0, 10, 1, 11]])
    np.testing.assert_array_equal(found[7], [[0, 0, 1, 1]])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_masks_of_coco():
    pytest.importorskip("pycocotools")
    square = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]
    found = metrics.coco_masks(
        [
            {"category_id": 3, "segmentation": [square]},
            {"category_id": 3, "segmentation": {"size": [5, 8], "counts": [0, 5, 35]}},
            {"category_id": 7, "segmentation": {"size": [5, 8], "counts": [39, 1]}},
        ],
        (5, 8),
    )
    mask = np.zeros((5, 8), bool)
    mask[1:4, 2:6] = mask[:, 0] = True
    np.testing.assert_array_equal(found[3], mask)
    assert np.argwhere(found[7]).tolist() == [[4, 7]]


@pytest.mark.slow
def test_pointing_at_the_center_of_voc2007(shared):
    """The published baseline: 69.6 over all examples, 42.4 over the difficult ones."""
    with zipfile.ZipFile(shared / "voc2007" / "test_annotations.zip") as files:
        names = sorted(n for n in files.namelist() if n.endswith(".xml"))
        images = [metrics.voc_annotation(files.read(name)) for name in names]
    examples = [(a.size, o) for a in images for o in a.objects if o.counts]
    difficult = np.array([o.difficult for _, o in examples])
    assert len(images) == 4952
    assert (len(examples), difficult.sum()) == (7013, 2230)

    def play(example):
        point, boxes = example
        mask = metrics.box_masks(boxes[None], (500, 500))
        return metrics.point_hits(point[None], mask).score[0]

    # few boxes and many apart, for each batch is filled up to its largest number
    number = np.array([len(o.boxes) for _, o in examples])
    score = np.full(len(examples), np.nan)
    for chosen in (number <= 2, number > 2):
        some = [examples[i] for i in np.flatnonzero(chosen)]
        boxes = np.zeros((len(some), number[chosen].max(), 4), np.int32)
        for row, (_, o) in zip(boxes, some, strict=True):
            row[: len(o.boxes)] = o.boxes
        centers = np.array([size for size, _ in some], np.float32) / 2
        score[chosen] = jax.jit(lambda a: jax.lax.map(play, a))((centers, boxes))
    target = jnp.array([metrics.VOC_CLASSES.index(o.label) for _, o in examples])
    valid = ~np.isnan(score)
    everything = metrics.class_means(score, valid, target, classes=20)
    hard = metrics.class_means(score, valid & difficult, target, classes=20)
    assert everything.number.sum() == 7013
    np.testing.assert_allclose(100 * everything.mean, 69.63, atol=0.005)
    np.testing.assert_allclose(100 * hard.mean, 42.4, atol=0.05)
