"""What metrics are given: the right value where an argument is unusual, one sentence where bad."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxattr
from jaxattr import metrics, scores, viz

X, A = np.ones((2, 4, 4, 3), np.float32), np.arange(32.0).reshape(2, 4, 4)
BYTES, T = np.full((2, 4, 4, 3), 200, np.uint8), np.array([0, 0])
MASK, KEY = np.ones((2, 4, 4), bool), jax.random.key(0)
SQUARE = {"size": [4, 4], "counts": [0, 16]}


def f(x):
    return x.sum((1, 2))


def binary(x):
    return x.mean((1, 2, 3))[:, None]


def coco(segmentation):
    pytest.importorskip("pycocotools")
    return metrics.coco_masks([{"category_id": 7, "segmentation": segmentation}], (4, 4))


def xml(x0, y0, x1, y1):
    box = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    size = "<size><width>30</width><height>20</height></size>"
    cat = f"<object><name>cat</name><bndbox>{box}</bndbox></object>"
    return f"<annotation>{size}{cat}</annotation>"


WRONG = {
    "complex maps": (lambda: metrics.rank_correlation(A * 1j, A), "complex64; expected real"),
    "reduction": (
        lambda: metrics.boundary_dependency(X, border=1, reduce=jnp.sum),
        r"reduce returned shape \(\); expected \(2, 4, 4\)",
    ),
    "fraction": (lambda: metrics.roar(X, A, fraction=40), "fraction is 40; expected one .* 0 to 1"),
    "no fraction": (lambda: metrics.roar(X, A, fraction=np.nan), "fraction is nan"),
    "fraction below 0": (lambda: metrics.roar(X, A, fraction=-1), "fraction is -1"),
    "fractions": (
        lambda: metrics.roar(X, A, fraction=jnp.array([0.1, 0.2])),
        r"fraction has shape \(2,\); expected one number",
    ),
    "baseline of bytes": (
        lambda: metrics.roar(BYTES, A, fraction=0.5, baseline=0.485),
        "baseline is 0.485, which images of dtype uint8 cannot hold",
    ),
    "baseline beyond bytes": (
        lambda: metrics.roar(BYTES, A, fraction=0.5, baseline=300),
        "baseline is 300, which",
    ),
    "NaN in bytes": (
        lambda: metrics.roar(BYTES, np.where(A, A, np.nan), fraction=0.5),
        "map 0 is not finite, and uint8 images hold no NaN",
    ),
    "bytes under jit": (
        lambda: jax.jit(lambda a: metrics.roar(BYTES, a, fraction=0.5))(A),
        "may be not finite under jit",
    ),
    "sizes": (
        lambda: metrics.pointing_game(A, MASK, sizes=[[4, 4], [4, 5]]),
        r"sizes\[1\] is \[4, 5\]; the masks are padded to \[4, 4\]",
    ),
    "sizes of floats": (
        lambda: metrics.pointing_game(A, MASK, sizes=np.ones((2, 2))),
        "sizes has shape .* float32; expected a whole height and width",
    ),
    "void of bytes": (
        lambda: metrics.segmentation_iou(A, MASK, void=MASK.astype(np.uint8)),
        "void has shape .* dtype uint8; expected bool",
    ),
    "region of floats": (
        lambda: metrics.localization_iou(A, MASK, region=lambda a: a),
        "what region returns has .* expected bool",
    ),
    "tolerance": (lambda: metrics.pointing_game(A, MASK, tolerance=-1), "tolerance is -1"),
    "labels": (
        lambda: metrics.roc_auc([0.1, 0.2], [0.0, 1.0]),
        r"positive has shape \(2,\) and dtype float32; expected bool \(2,\)",
    ),
    "number of labels": (lambda: metrics.roc_auc([0.1], [True, False]), r"expected bool \(1,\)"),
    "even window": (lambda: metrics.box_window(size=4), "window .* expected an odd number"),
    "even weights": (lambda: metrics.ssim(A, A, weights=np.full(2, 0.5)), "expected an odd number"),
    "data range": (
        lambda: metrics.ssim(A, A, weights=metrics.box_window(size=3), data_range=0),
        "data_range is 0; expected one",
    ),
    "map of another batch": (
        lambda: metrics.completeness_error(f)(X, T, A[:1]),
        r"attribution has shape \(1, 4, 4\); the images have",
    ),
    "baseline": (
        lambda: metrics.insertion(f, baseline=np.zeros(2))(X, T, A),
        r"baseline has shape \(2,\), which does not broadcast",
    ),
    "softmax of one": (lambda: metrics.insertion(binary)(X, T, A), "pass score=jaxattr.scores.sig"),
    "margin of one": (lambda: scores.margin(jnp.ones((1, 1)), jnp.array([0])), "no other class"),
    "radius": (lambda: metrics.max_sensitivity(f, radius=-1), "radius is -1; expected one"),
    "no key": (lambda: jaxattr.rise(f)(X, T, key=0), "key is 0; expected a key of JAX"),
    "areas": (lambda: jaxattr.extremal_perturbation(f, areas=0.1), r"several shares, as \(0.1,\)"),
    "columns": (lambda: viz.figure(X[0], {"a": A[0]}, columns=0), "columns is 0"),
    "no polygon": (lambda: coco([]), "an object of category 7 is no polygons; expected polygons"),
    "empty polygon": (lambda: coco([[]]), "one of fewer than three points; expected"),
    "two points": (lambda: coco([[1, 1, 3, 3]]), "one of fewer than three points; expected"),
    "half a point": (lambda: coco([[1, 1, 3, 3, 2, 2, 1]]), "expected polygons"),
    "size of a code": (
        lambda: coco(SQUARE | {"size": [4, 5]}),
        r"run-length code of size \[4, 5\]",
    ),
    "length of a code": (lambda: coco(SQUARE | {"counts": [0, 15]}), "a run-length code of 15 pix"),
    "broken code": (lambda: coco(SQUARE | {"counts": b"zzz"}), "run-length code of category 7: "),
    "no code": (lambda: coco("mask.png"), "category 7 is a str; expected"),
    "swapped corners": (lambda: metrics.voc_annotation(xml(9, 2, 3, 5)), "'cat' has no pixel"),
    "box outside": (lambda: metrics.voc_annotation(xml(31, 1, 35, 5)), "'cat' has no pixel of the"),
    "negative box": (
        lambda: metrics.coco_boxes([{"category_id": 7, "bbox": [5, 5, -2, 3]}]),
        r"the box \[5, 5, -2, 3\] of category 7 is none: expected a first column",
    ),
    "no numbers": (
        lambda: metrics.coco_boxes([{"category_id": 7, "bbox": [0, 0, np.nan, 3]}]),
        "of category 7 is none",
    ),
    "swapped box": (lambda: metrics.box_masks([[5, 5, 2, 9]], (9, 9)), "ends before it starts"),
    "no boxes": (lambda: metrics.box_masks([1, 2, 3, 4], (9, 9)), r"boxes have shape \(4,\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_arguments_are_one_sentence(name):
    call, said = WRONG[name]
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [8, 10, 32, 100])
def test_a_flat_or_binary_map_is_marked_whatever_its_size(side):
    mask = np.zeros((1, side, side), bool)
    mask[0, : side // 3] = True
    region = jax.jit(metrics.above_mean_region)
    for value in np.float32([0.1, 0.7, 3e-9]):
        np.testing.assert_array_equal(region(value * mask), mask)
        assert region(np.full(mask.shape, value)).all()
    overlap = jax.jit(partial(metrics.localization_iou, region=metrics.above_mean_region))
    enlarged = np.ones((1, 3 * side, 3 * side), bool)
    assert overlap(np.full(mask.shape, 0.7, np.float32), enlarged).score.item() == 1


def test_roar_keeps_bytes():
    found = metrics.roar(BYTES, A, fraction=0.25, baseline=np.array([124, 116, 104]))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, 3, :, 0], 124)
    np.testing.assert_array_equal(found[:, :3], 200)


def test_what_a_mask_has_outside_its_image_does_not_count():
    mask = np.zeros((3, 4, 4), bool)
    mask[:, 3, 3] = True  # outside all but the last image
    sizes, a = [[2, 2], [0, 4], [4, 4]], np.ones((3, 4, 4))
    for game in (metrics.pointing_game, metrics.energy_pointing_game, metrics.localization_iou):
        assert game(a, mask, sizes=sizes).valid.tolist() == [False, False, True]
    large = jax.jit(metrics.pointing_game)(a, mask, sizes=jnp.array([[5, 4], [-1, 4], [4, 4]]))
    assert large.valid.tolist() == [False, False, True]


def test_a_point_that_is_no_number_has_no_score():
    assert metrics.point_hits([[np.nan, 1], [1, 1]], MASK).valid.tolist() == [False, True]
    far = metrics.point_hits(np.array([[3, 3]], np.uint8), MASK[:1] & False | (A[:1] == 0))
    assert far.score.item() == 1  # 18 < 225, not (0 - 3) modulo 256


def test_lists_and_labels_of_either_kind():
    score = [0.1, 0.4, 0.4, 0.8]
    for labels in ([False, False, True, True], [0, 0, 1, 1], [-1, -1, 1, 1]):
        assert metrics.roc_auc(score, labels).item() == 0.875
    narrow = np.array([10, 40, 40, 80], np.uint8)
    assert metrics.roc_auc(narrow, np.array([0, 0, 255, 255], np.uint8)).item() == 0.875
    maps = [[[0.0, 1.0]]]
    assert metrics.pointing_game(maps, [[[False, True]]], tolerance=1).score.item() == 1
    mask = metrics.box_masks([[0, 0, 1, 2]], (2, 2))
    assert mask.tolist() == [[True, True], [False, False]]


def test_an_annotation_is_read_from_its_path(tmp_path):
    path = tmp_path / "cat.xml"
    path.write_text(xml(3, 2, 9, 5))
    assert metrics.voc_annotation(path).objects[0].boxes.tolist() == [[1, 2, 5, 9]]
    path.write_text("<annotation>")
    with pytest.raises(ValueError, match=r"cat\.xml is not an annotation"):
        metrics.voc_annotation(path)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
@pytest.mark.parametrize("counts", ["0`0", b"0`0"])
def test_a_compressed_code_is_read(counts):
    assert coco(SQUARE | {"counts": counts})[7].all()


@pytest.mark.parametrize("scale", [1, 1e-4, 255])
def test_ssim_does_not_depend_on_the_scale_of_both_maps(scale):
    a, b = np.random.default_rng(0).random((2, 1, 9, 9))
    skimage = pytest.importorskip("skimage.metrics").structural_similarity
    reach = max(a.max(), b.max()) - min(a.min(), b.min())
    expected = skimage(a[0], b[0], data_range=reach)
    np.testing.assert_allclose(metrics.ssim(a * scale, b * scale).score, expected, atol=1e-5)
    assert metrics.ssim(a * 0 + 3, b * 0 + 3).score.item() == 1


def test_a_binary_classifier_is_measured_by_sigmoid():
    x, a = np.stack([np.full((4, 4, 1), v, np.float32) for v in (-2, 2)]), A
    measure = metrics.insertion(binary, step=4, baseline=0.0, score=metrics.sigmoid)
    found = measure(x, T, a)
    share = np.linspace(0, 1, 5)
    for value, curve in zip((-2, 2), found.curve, strict=True):
        np.testing.assert_allclose(curve, 1 / (1 + np.exp(-value * share)), rtol=1e-5)


def test_labels_that_do_not_exclude_each_other():
    logits = jnp.array([[0.0, 3.0], [1.0, -1.0]])
    found = metrics.sigmoid(logits, jnp.array([1, 0]))
    np.testing.assert_allclose(found, 1 / (1 + np.exp([-3.0, -1.0])), rtol=1e-6)
    assert np.isnan(metrics.sigmoid(logits, jnp.array([2, 2]))).all()
