"""Blur IG, Guided IG and XRAI: PAIR's arrays, closed forms, the path itself."""

import sys
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import NETS, load, plain
from peers import peer, relative_error
from precision import enable_x64
from scipy import ndimage
from speed import mostly_slow

import jaxattr
from jaxattr.loops import quadrature as quadratures
from jaxattr.methods.xrai import at_once, felzenszwalb, greedily

PAIR = peer("paths")
every_net = pytest.mark.parametrize("name", mostly_slow(NETS, ["resnet"]))


def explained(name):
    net, params, x, target = load(name, "float64")
    return jax.jit(plain(net, params)), x[:2], target[:2]


def picked(logits, target):
    return logits[jnp.arange(len(target)), target]


@pytest.mark.parametrize("sqrt", mostly_slow([False, True], [True]))
@every_net
def test_blur_integrated_gradients_against_pair(name, sqrt):
    with enable_x64(True):
        f, x, target = explained(name)
        options = {"max_sigma": 8, "steps": 20, "sqrt": sqrt, "chunk": 3}
        found = jax.jit(jaxattr.blur_integrated_gradients(f, **options))(x, target)
    assert relative_error(found, PAIR[f"{name}.blur_integrated_gradients{'.sqrt' * sqrt}"]) < 1e-10


@pytest.mark.parametrize("max_dist", mostly_slow([0.02, 0.2, 1.0], [0.2]))
@every_net
def test_guided_integrated_gradients_against_pair(name, max_dist):
    with enable_x64(True):
        f, x, target = explained(name)
        explain = jaxattr.guided_integrated_gradients(f, steps=30, max_dist=max_dist)
        found = jax.jit(explain)(x, target)
    assert relative_error(found, PAIR[f"{name}.guided_integrated_gradients.{max_dist}"]) < 1e-10


@pytest.mark.parametrize("grow", [greedily, at_once])
@every_net
def test_xrai_against_pair(name, grow):
    kind = {greedily: "full", at_once: "fast"}[grow]
    with enable_x64(True):
        f, x, target = explained(name)
        base = jnp.asarray(PAIR[f"{name}.xrai.base"])
        segments = PAIR[f"{name}.xrai.segments"]
        explain = jaxattr.xrai(
            f,
            attribute=lambda x, target, *, key=None: base,
            segments=lambda image: segments,
            grow=grow,
            min_pixels=5,
        )
        found = jax.jit(explain)(x, target)
    assert relative_error(found, PAIR[f"{name}.xrai.{kind}"]) < 1e-10


def test_blur_integrated_gradients_of_a_linear_model():
    """The attribution is the weight times what blurring took away, up to the difference's error."""
    with enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 7, 5, 2))
        weight = jax.random.normal(jax.random.key(1), (7, 5, 2, 3))
        f = lambda x: jnp.einsum("bhwc,hwck->bk", x, weight)
        errors = []
        for steps in (100, 400):
            options = {"max_sigma": 2, "steps": steps, "grad_step": 1e-5, "chunk": 20}
            explain = jaxattr.blur_integrated_gradients(f, **options)
            found = jax.jit(explain)(x, jnp.array([2, 0]))
            blurred = ndimage.gaussian_filter(x, [0, 2, 2, 0], mode="constant")
            expected = np.asarray(x - blurred) * np.moveaxis(weight, -1, 0)[np.array([2, 0])]
            errors.append(relative_error(found, expected))
    assert errors[1] < errors[0] / 3 < 0.02


def test_blur_integrated_gradients_are_complete():
    with enable_x64(True):
        f, x, target = explained("resnet")
        options = {"max_sigma": 3, "steps": 100, "sqrt": True, "grad_step": 1e-4, "chunk": 10}
        found = jax.jit(jaxattr.blur_integrated_gradients(f, **options))(x, target)
        blurred = ndimage.gaussian_filter(x, [0, 3**0.5, 3**0.5, 0], mode="constant")
        change = picked(jax.jit(lambda x, y: f(x) - f(y))(x, blurred), target)
    total = np.asarray(found).sum((1, 2, 3))
    np.testing.assert_allclose(total, change, atol=0.05 * np.abs(change).max())


def test_guided_path_without_leave_is_the_straight_one():
    with enable_x64(True):
        f, x, target = explained("vgg")
        guided = jaxattr.guided_integrated_gradients(f, steps=7, max_dist=0, baseline=0.3)
        straight = jaxattr.integrated_gradients(
            f, steps=7, baseline=0.3, quadrature=quadratures.left_riemann
        )
        found, expected = (jax.jit(explain)(x, target) for explain in (guided, straight))
    assert relative_error(found, expected) < 1e-10


def path(x, f, **options):
    """Return the points at which Guided IG asks for gradients, and its attribution."""
    points = []

    def watched(x):
        jax.debug.callback(lambda x: points.append(np.asarray(x)), x, ordered=True)
        return f(x)

    explain = jaxattr.guided_integrated_gradients(watched, **options)
    found = jax.jit(explain)(x, jnp.zeros(len(x), int))
    jax.effects_barrier()
    return np.stack(points), found


def quadratic(x):
    """Half of the values have no gradient at all, the others different ones."""
    weight = jnp.arange(x[0].size) % 2 * jnp.linspace(-1, 3, x[0].size)
    return ((x.reshape(len(x), -1) ** 2 + x.reshape(len(x), -1)) @ weight)[:, None]


@pytest.mark.parametrize("max_dist", [0.05, 0.3, 1.0])
def test_guided_path(max_dist):
    """It gets nearer by the same distance in each step, within its bounds; flat values go first."""
    with enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (3, 5, 4, 2))
        points, found = path(x, quadratic, steps=10, max_dist=max_dist, fraction=0.1)
        assert len(points) == 10
        x = np.asarray(x)
        distance = np.abs(x - points).sum((2, 3, 4)) / np.abs(x).sum((1, 2, 3))
        np.testing.assert_allclose(distance, np.tile(1 - np.arange(10) / 10, (3, 1)).T, atol=1e-9)
        at = points / x
        straight = (np.arange(10) / 10)[:, None, None, None, None]
        assert (np.abs(at - straight) <= max_dist + 1e-9).all()
        ahead = at[5].reshape(3, -1)
        assert (ahead[:, ::2] > ahead[:, 1::2].mean()).all()
        ends = np.concatenate([points, x[None]])
        total = 0
        for here, there in pairwise(ends):
            slope = jax.grad(lambda x: quadratic(x).sum())(jnp.asarray(here))
            total += np.asarray(slope) * (there - here)
        np.testing.assert_allclose(found, total, atol=1e-9)


def test_guided_integrated_gradients_are_complete():
    """The error falls with the steps."""
    with enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (3, 5, 4, 2))
        change = quadratic(x)[:, 0]
        errors = []
        for steps in (20, 200):
            explain = jaxattr.guided_integrated_gradients(quadratic, steps=steps)
            total = jax.jit(explain)(x, jnp.zeros(3, int)).sum((1, 2, 3))
            errors.append(np.abs(total - change).max())
    assert errors[1] < errors[0] / 5


def test_guided_path_of_an_image_that_is_its_baseline():
    x = jnp.full((1, 3, 3, 1), 0.5)
    explain = jaxattr.guided_integrated_gradients(quadratic, steps=4, baseline=0.5)
    np.testing.assert_array_equal(jax.jit(explain)(x, jnp.zeros(1, int)), 0)


def test_guided_progress_is_told():
    told = []
    explain = jaxattr.guided_integrated_gradients(quadratic, steps=5, progress=told.append)
    jax.jit(explain)(jnp.ones((1, 3, 3, 1)), jnp.zeros(1, int))
    jax.effects_barrier()
    assert sorted(told) == [1, 2, 3, 4, 5]


def test_memory_does_not_grow_with_the_steps():
    net, params, x, target = load("vgg")
    for method in (jaxattr.blur_integrated_gradients, jaxattr.guided_integrated_gradients):

        def needed(steps, method=method):
            explain = jax.jit(method(plain(net, params), steps=steps)).lower(x, target)
            return explain.compile().memory_analysis().temp_size_in_bytes

        # the Gaussians of a step are a few hundred numbers
        assert needed(400) < needed(10) + 400 * 3 * 40 * 4 * 2


def segmented(image):
    """Cut an image into overlapping stripes that leave out the last rows."""
    masks = np.zeros((5, *image.shape[:2]), bool)
    for i, mask in enumerate(masks):
        mask[2 * i : 2 * i + 4] = True
    return masks


def test_xrai_conserves_what_lies_in_the_image():
    with enable_x64(True):
        f, x, target = explained("resnet")
        base = jaxattr.input_x_gradient(f)
        explain = jaxattr.xrai(f, attribute=base, segments=segmented, min_pixels=1)
        found = jax.jit(explain)(x, target)
        expected = jax.jit(base)(x, target).max(-1).sum((1, 2))
        assert found.shape == (*x.shape[:3], 1)
        np.testing.assert_allclose(found.sum((1, 2, 3)), expected, rtol=1e-10)
        assert all(len(np.unique(row)) == 1 for a in np.asarray(found) for row in a)


def test_xrai_takes_integrated_gradients_from_both_ends():
    with enable_x64(True):
        f, x, target = explained("vgg")
        found = jax.jit(jaxattr.xrai(f, steps=4, segments=segmented, min_pixels=1))(x, target)
        maps = []
        for i in range(2):
            ends = (float(x[i].min()), float(x[i].max()))
            both = [jaxattr.integrated_gradients(f, steps=4, baseline=end) for end in ends]
            one = sum(jax.jit(ig)(x[i : i + 1], target[i : i + 1]) for ig in both) / 2
            base = lambda x, target, *, key=None, one=one: one
            explain = jaxattr.xrai(f, attribute=base, segments=segmented, min_pixels=1)
            maps.append(jax.jit(explain)(x[i : i + 1], target[i : i + 1]))
    assert relative_error(found, np.concatenate(maps)) < 1e-10


def test_regions_grow_by_what_they_add():
    """Written out: every mean anew in every turn."""
    random = np.random.default_rng(0)
    for _ in range(20):
        masks, a = random.random((12, 60)) < 0.2, random.normal(size=60)
        labels = greedily(masks, a, 3)
        covered, region = np.zeros(60, bool), 0
        while True:
            added = [mask & ~covered for mask in masks]
            means = [a[m].mean() if m.sum() >= 3 else -np.inf for m in added]
            if max(means) == -np.inf:
                break
            region += 1
            best = added[int(np.argmax(means))]
            np.testing.assert_array_equal(labels == region, best)
            covered |= best
        assert labels.max() == region
        np.testing.assert_array_equal(labels > 0, covered)


def test_segments_of_a_photograph():
    data = pytest.importorskip("skimage.data")
    image = data.chelsea()[:200, :240].astype(float)
    masks = felzenszwalb(image)
    assert masks.shape[1:] == (200, 240)
    assert masks.any(0).all()
    assert 20 < len(masks) < 1000
    np.testing.assert_array_equal(felzenszwalb(image * 3 - 1), masks)
    assert felzenszwalb(np.zeros((8, 8, 3))).all()


def test_errors(monkeypatch):
    f, x, target = (lambda x: x.mean((1, 2))), jnp.ones((1, 4, 4, 3)), jnp.array([0])
    for method, options, message in [
        (
            jaxattr.blur_integrated_gradients,
            {"max_sigma": 0},
            "max_sigma is 0; expected a positive",
        ),
        (jaxattr.blur_integrated_gradients, {"grad_step": -1}, "grad_step is -1"),
        (jaxattr.blur_integrated_gradients, {"steps": 0}, "steps is 0"),
        (jaxattr.blur_integrated_gradients, {"chunk": 0}, "chunk is 0"),
        (jaxattr.guided_integrated_gradients, {"steps": 0}, "steps is 0"),
        (jaxattr.guided_integrated_gradients, {"fraction": 0}, "fraction is 0; expected more than"),
        (
            jaxattr.guided_integrated_gradients,
            {"max_dist": 1.1},
            "max_dist is 1.1; expected 0 to 1",
        ),
        (jaxattr.xrai, {"min_pixels": 0}, "min_pixels is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            method(f, **options)
    wrong = jaxattr.xrai(f, steps=1, segments=lambda image: np.ones((2, 3, 3), bool))
    with pytest.raises(Exception, match=r"segments have shape \(2, 3, 3\); expected \(segments, 4"):
        wrong(x, target)
    monkeypatch.setattr(sys.modules["jaxattr.methods.xrai"], "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxattr\[xrai\]'"):
        jaxattr.xrai(f)
