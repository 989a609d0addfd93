"""Every metric on maps and annotations of any dtype and value, against NumPy in plain loops."""

import inspect
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import plain_metrics
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_metrics import BATCH, HEIGHT, KEY, PIXELS, SHAPE, TARGET, WIDTH, X, f, pairs, together
from speed import mostly_slow

from jaxattr import metrics
from jaxattr.types import Fun

PLAIN = {"baseline": 0.0, "score": metrics.logit}


def one(key, x):
    """Perturb by one everywhere."""
    return jnp.ones_like(x)


MEASURES = plain_metrics.MEASURES | {
    "insertion": lambda a, mask, x=X, t=TARGET: metrics.insertion(f, step=7, **PLAIN)(x, t, a),
    "deletion": lambda a, mask, x=X, t=TARGET: metrics.deletion(f, step=7, **PLAIN)(x, t, a),
    "complementary_insertion": lambda a, mask, x=X, t=TARGET: metrics.complementary_insertion(
        f, step=7, **PLAIN
    )(x, t[:, None], a),
    "morf": lambda a, mask, x=X, t=TARGET: metrics.morf(f, fraction=1, steps=5)(x, t, a),
    "lerf": lambda a, mask, x=X, t=TARGET: metrics.lerf(f, fraction=1, steps=5)(x, t, a),
    "completeness_error": lambda a, mask, x=X, t=TARGET: metrics.completeness_error(f)(x, t, a),
    "infidelity": lambda a, mask, x=X, t=TARGET: metrics.infidelity(f, perturb=one, samples=1)(
        x, t, a, key=KEY
    ),
    "pointing_game": lambda a, mask, x=X, t=TARGET: metrics.pointing_game(a, mask, tolerance=2),
    "energy_pointing_game": lambda a, mask, x=X, t=TARGET: metrics.energy_pointing_game(a, mask),
    "localization_iou": lambda a, mask, x=X, t=TARGET: metrics.localization_iou(a, mask),
    "segmentation_iou": lambda a, mask, x=X, t=TARGET: metrics.segmentation_iou(
        a, mask, region=metrics.above_mean_region
    ),
    "boundary_dependency": lambda a, mask, x=X, t=TARGET: metrics.boundary_dependency(a, border=1),
    "rank_correlation": lambda a, mask, x=X, t=TARGET: metrics.rank_correlation(a, x),
    "ssim": lambda a, mask, x=X, t=TARGET: metrics.ssim(a, x, weights=metrics.box_window(size=3)),
    "roar": lambda a, mask, x=X, t=TARGET: metrics.roar(x, a, fraction=0.5),
    "roc_auc": lambda a, mask, x=X, t=TARGET: metrics.roc_auc(a.ravel(), mask.ravel()),
    "mean": lambda a, mask, x=X, t=TARGET: metrics.mean(a[0, 0], mask[0, 0]),
    "class_means": lambda a, mask, x=X, t=TARGET: metrics.class_means(
        a[0, 0], mask[0, 0], jnp.arange(WIDTH) // 4, classes=2
    ),
    "upper_half": lambda a, mask, x=X, t=TARGET: metrics.upper_half(a[0, 0], mask[0, 0]),
}
"""Each metric of maps, as a function of a map and a mask, and perhaps images and classes."""

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
]


def test_every_metric_of_a_map_is_here():
    public = {n: v for n, v in vars(metrics).items() if inspect.isfunction(v)}
    takes = {"f", "attribution", "b", "score"}
    seen = {n: inspect.signature(v) for n, v in public.items()}
    found = {n for n, s in seen.items() if takes & s.parameters.keys()}
    of_methods = {n for n, s in seen.items() if {"attribute", "method"} & s.parameters.keys()}
    found -= of_methods | {n for n, s in seen.items() if s.return_annotation is Fun}
    assert found == set(MEASURES)


@pytest.mark.parametrize("name", MEASURES)
def test_a_map_of_any_dtype_is_widened_before_anything_else(name):
    """No negation, sum or square in bytes or in half precision."""
    for dtype in DTYPES:
        a = jnp.zeros((*SHAPE,), dtype)
        program = jax.make_jaxpr(lambda a: MEASURES[name](a, jnp.ones(SHAPE, bool)))(a).jaxpr
        if name in ("roc_auc", "mean", "class_means", "upper_half"):
            program = jax.make_jaxpr(LISTS[name])(a[0, 0]).jaxpr
        uses = [e for e in program.eqns if program.invars[0] in e.invars]
        assert uses
        for equation in uses:
            assert equation.primitive.name == "convert_element_type", (dtype, equation)
            assert equation.params["new_dtype"] == jnp.float32


ALL = jnp.ones(WIDTH, bool)
LISTS = {
    "roc_auc": lambda s: metrics.roc_auc(s, ALL),
    "mean": lambda s: metrics.mean(s, ALL),
    "class_means": lambda s: metrics.class_means(s, ALL, jnp.arange(WIDTH), classes=9),
    "upper_half": lambda s: metrics.upper_half(s, ALL),
}


def test_an_empty_batch_has_no_scores():
    none = jnp.zeros((0, HEIGHT, WIDTH)), jnp.ones((0, HEIGHT, WIDTH), bool), X[:0], TARGET[:0]
    for name in MEASURES.keys() - LISTS.keys():
        found = jax.eval_shape(MEASURES[name], *none)
        assert all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(found)), name


def curve(a, n, first, then, target):
    """Return the logit as more and more of `first` is replaced by `then`, the largest `a` first."""
    order = np.argsort(-a.ravel(), kind="stable")
    found = []
    for count in n:
        image = first.reshape(PIXELS, 3).copy()
        image[order[:count]] = then.reshape(PIXELS, 3)[order[:count]]
        found.append(image.sum(0)[target])
    return np.array(found)


def above_mean(a):
    positive = a > 0
    return positive & (a >= a[positive].mean() * (1 - 1e-6)) if positive.any() else positive


def structure(a, b):
    """SSIM as it is defined, a window after another."""
    reach = max(a.max(), b.max()) - min(a.min(), b.min()) or 1
    c1, c2, found = (0.01 * reach) ** 2, (0.03 * reach) ** 2, []
    for i, j in product(range(HEIGHT - 2), range(WIDTH - 2)):
        p, q = (m[i : i + 3, j : j + 3].ravel() for m in (a, b))
        v = np.cov(p, q)
        similar = (2 * p.mean() * q.mean() + c1) * (2 * v[0, 1] + c2)
        found.append(similar / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (v[0, 0] + v[1, 1] + c2)))
    return np.mean(found)


def near(a, mask):
    r, c = np.unravel_index(a.argmax(), a.shape)
    return float(any((r - i) ** 2 + (c - j) ** 2 < 4 for i, j in np.argwhere(mask)))


def iou(p, q):
    return (p & q).sum() / (p | q).sum()


def expected(a, mask, x, t):
    """Return the score of every metric for one image, NaN where there is none."""
    zero, whole, some = np.zeros_like(x), float(x[..., t].sum()), mask.any()
    steps, fifths, area = np.minimum(np.arange(6) * 7, PIXELS), np.arange(6) * 6, np.trapezoid
    energy, size = np.maximum(a, 0), np.abs(a)
    shown = x.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return plain_metrics.expected(a, mask, x, t) | {
            "insertion": area(curve(a, steps, zero, x, t)) / 5,
            "deletion": area(curve(a, steps, x, zero, t)) / 5,
            "complementary_insertion": area(curve(-a, steps, zero, x, t)) / 5,
            "morf": area(curve(a, fifths, x, zero, t)) / 5 / whole,
            "lerf": area(curve(-a, fifths, x, zero, t)) / 5 / whole,
            "completeness_error": abs(a.sum() - whole),
            "infidelity": (3 * a.sum() - PIXELS) ** 2,
            "pointing_game": near(a, mask) if some else np.nan,
            "energy_pointing_game": energy[mask].sum() / energy.sum()
            if some and mask.mean() <= 0.5
            else np.nan,
            "localization_iou": iou(a > 0, mask) if some else np.nan,
            "segmentation_iou": iou(above_mean(a), mask) if some else np.nan,
            "boundary_dependency": 1 - size[1:-1, 1:-1].sum() / size.sum(),
            "rank_correlation": scipy.stats.spearmanr(a.ravel(), shown.ravel())[0]
            if np.ptp(a)
            else np.nan,
            "ssim": structure(a, shown),
            "roar": np.sort(curve(a, [PIXELS // 2], x, zero, t))[0],
        }


def test_a_name_for_each_reference():
    a = np.ones(SHAPE[1:])
    whole = np.ones(SHAPE), np.ones(SHAPE, bool)
    named = {*expected(a, a > 0, X[0], 0), *together(*whole), *LISTS}
    assert named == set(MEASURES)


EIGHTHS = st.integers(-512, 512).map(lambda n: n / 8)  # sums of them have no rounding
VALUES = {
    "float32": EIGHTHS | st.sampled_from([0.0, -0.0, 0.0, 1.0]),
    "float16": EIGHTHS | st.sampled_from([np.nan, np.inf, -np.inf]) | st.just(60.0),
    "uint8": st.integers(0, 255) | st.sampled_from([0, 1, 255]),
}
EXACT = {"ssim": {"rtol": 0, "atol": 2e-4}, "road": {"rtol": 1e-4}}  # road's linear system
measured = jax.jit(lambda a, mask: {n: MEASURES[n](a, mask) for n in MEASURES})


@pytest.mark.parametrize("dtype", mostly_slow(VALUES, ["float32"]))
def test_every_metric_is_numpys(dtype):
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(
        arrays(dtype, SHAPE, elements=VALUES[dtype]),
        arrays(bool, SHAPE),
    )
    def check(a, mask):
        found, wide = measured(a, mask), a.astype(float)
        for i in range(BATCH):
            finite = np.isfinite(wide[i]).all()
            for name, value in (
                expected(wide[i], mask[i], X[i], TARGET[i]).items() if finite else ()
            ):
                result = found[name]
                score = result[i, ..., TARGET[i]].sum() if name == "roar" else result.score[i]
                exact = EXACT.get(name, {"rtol": 1e-5, "atol": 1e-5})
                np.testing.assert_allclose(score, value, err_msg=name, **exact)
                if name != "roar":
                    assert result.valid[i] == np.isfinite(value), name
            for name in () if finite else expected(np.ones(SHAPE[1:]), mask[i], X[i], 0):
                result = found[name]
                assert np.isnan(result[i] if name == "roar" else result.score[i]).all(), name
        for name, scores in together(wide, mask).items():
            np.testing.assert_allclose(found[name].score, scores, err_msg=name)
        row, kept = wide[0, 0], mask[0, 0]
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(
                found["mean"].mean, row[kept].mean() if kept.any() else np.nan
            )
        np.testing.assert_allclose(found["roc_auc"], pairs(wide.ravel(), mask.ravel()), rtol=1e-5)
        for k, group in enumerate((slice(0, 4), slice(4, 6))):
            chosen = row[group][kept[group]]
            with np.errstate(invalid="ignore"):
                mean = chosen.mean() if len(chosen) else np.nan
            np.testing.assert_allclose(found["class_means"].classes[k], mean, rtol=1e-6)
        if not np.isnan(row).any():
            order = [i for i in np.argsort(-row, kind="stable") if kept[i]]
            half = np.isin(np.arange(WIDTH), order[: (len(order) + 1) // 2])
            np.testing.assert_array_equal(found["upper_half"], half)

    check()


corners = st.tuples(st.integers(-2, 8), st.integers(-2, 8), st.integers(0, 4), st.integers(0, 4))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(corners, min_size=1, max_size=4))
def test_boxes_are_their_pixels(drawn):
    boxes = [(r, c, r + h, c + w) for r, c, h, w in drawn]
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    for i, j in product(range(HEIGHT), range(WIDTH)):
        pixels[i, j] = any(r <= i < r2 and c <= j < c2 for r, c, r2, c2 in boxes)
    np.testing.assert_array_equal(metrics.box_masks(boxes, (HEIGHT, WIDTH)), pixels)
    coco = [{"category_id": 1, "bbox": [c, r, w, h]} for r, c, h, w in drawn]
    np.testing.assert_array_equal(metrics.coco_boxes(coco)[1], boxes)
