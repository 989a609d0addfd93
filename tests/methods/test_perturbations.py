"""Occlusion, RISE, meaningful and extremal perturbation against slow references and TorchRay."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from nets import load, plain
from peers import peer, relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr import scores
from jaxattr.image.filters import ceiling_reach, gaussian_blur
from jaxattr.image.masks import blurred_grid, grid_mask
from jaxattr.image.pyramids import blend, blur_pyramid, fade_pyramid
from jaxattr.methods import rise as rise_module
from jaxattr.methods.extremal_perturbation import delete, dual, preserve
from jaxattr.methods.meaningful_perturbation import _discs, _moved

KEY = jax.random.key(0)
LEARNED = {
    "meaningful_perturbation": partial(
        jaxattr.meaningful_perturbation_details, spacing=4, jitter=0, init=1.0
    ),
    "extremal_perturbation": partial(
        jaxattr.extremal_perturbation_details, areas=(0.1, 0.3), spacing=4, sigma=8
    ),
}


def linear(key, shape=(9, 7, 2), classes=3):
    """A classifier that is linear in the image, and its weights `(H, W, C, K)`."""
    weights = jax.random.normal(key, (*shape, classes))
    return lambda x: jnp.einsum("bhwc,hwck->bk", x, weights) + 5, np.asarray(weights, float)


@pytest.mark.parametrize(("window", "stride"), [((3, 2), (2, 1)), (4, 3), (7, 7), (1, 1)])
def test_occlusion_of_a_linear_function(window, stride):
    """Each window takes away the sum of weight times change that it covers; slowly, in float64."""
    f, weights = linear(KEY)
    x = jax.random.normal(jax.random.key(1), (2, 9, 7, 2))
    target, baseline = jnp.array([2, 0]), 0.25
    a = jax.jit(jaxattr.occlusion(f, window=window, stride=stride, baseline=baseline))(x, target)
    (height, width), (down, across) = np.broadcast_to(window, 2), np.broadcast_to(stride, 2)
    change = (np.asarray(x, float) - baseline) * np.moveaxis(weights[..., target], -1, 0)
    total, count = np.zeros((2, 9, 7)), np.zeros((9, 7))
    top = 0
    while True:
        left = 0
        while True:
            here = np.s_[top : top + height, left : left + width]
            total[:, *here] += change[:, *here].sum((1, 2, 3))[:, None, None]
            count[here] += 1
            if left + width >= 7:
                break
            left += across
        if top + height >= 9:
            break
        top += down
    assert relative_error(a[..., 0], total / count) < 1e-5


def test_occlusion_by_default_and_by_an_image():
    """By default an eighth of each side; what hides is anything that broadcasts to the image."""
    f, _ = linear(KEY, (16, 24, 2))
    x = jax.random.normal(jax.random.key(1), (2, 16, 24, 2))
    target = jnp.array([2, 0])
    maps = jax.jit(jaxattr.occlusion(f))(x, target)
    same = jax.jit(jaxattr.occlusion(f, window=(2, 3), stride=(1, 2)))(x, target)
    np.testing.assert_array_equal(maps, same)
    assert not np.any(jax.jit(jaxattr.occlusion(f, baseline=x))(x, target))


@pytest.mark.parametrize("method", mostly_slow(["occlusion", "rise"], ["rise"]))
def test_chunks_change_nothing(method):
    options = {"occlusion": {"window": 5, "stride": 2}, "rise": {"samples": 11}}[method]
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        attribute = partial(getattr(jaxattr, method), plain(net, params), **options)
        maps = [jax.jit(attribute(chunk=n))(x, target, key=KEY) for n in (1, 4, 11, 100)]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-9, atol=1e-12)


def test_rise_is_the_mean_of_masks_and_their_scores():
    """One mask at a time, without batches, loops on the device or products of matrices."""
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        f = jax.jit(plain(net, params))
        a = jax.jit(jaxattr.rise(f, samples=7, cells=4, probability=0.3, chunk=2))
        a, total = a(x, target, key=KEY), np.zeros(x.shape[:3])
        draw = jax.jit(
            partial(grid_mask, size=x.shape[1:3], cells=4, probability=0.3, dtype=x.dtype)
        )
        for i in range(7):
            mask = np.asarray(draw(jax.random.fold_in(KEY, i)))
            p = jax.nn.softmax(f(x * mask[..., None]))[np.arange(len(x)), target]
            total += np.asarray(p)[:, None, None] * mask
    np.testing.assert_allclose(a[..., 0], total / (7 * 0.3), rtol=1e-9)


def test_rise_by_given_masks_is_torchrays(monkeypatch):
    """TorchRay takes the sigmoid of the logit and does not divide by the masks' mean."""
    theirs = peer("perturbations")
    given = theirs["rise.masks"]
    draw = lambda i, *_, dtype, **__: jnp.asarray(given, dtype)[i]
    monkeypatch.setattr(jax.random, "fold_in", lambda _, number: number)
    monkeypatch.setattr(rise_module, "grid_mask", draw)
    sigmoid = lambda logits, target: jax.nn.sigmoid(scores.logit(logits, target))
    for precision, tolerance in {"float32": 1e-5, "float64": 1e-9}.items():
        with enable_x64(precision == "float64"):
            net, params, x, target = load("vgg", precision)
            explain = jaxattr.rise(plain(net, params), samples=len(given), score=sigmoid)
            a = 0.5 * jax.jit(explain)(x[:2], target[:2], key=KEY)
        assert relative_error(a, theirs["rise.vgg"]) < tolerance


def test_rise_with_every_cell_on_is_the_score():
    net, params, x, target = load("vgg")
    f = plain(net, params)
    a = jax.jit(jaxattr.rise(f, samples=3, probability=1.0, score=scores.logit))(x, target, key=KEY)
    expected = scores.logit(f(x), target)[:, None, None, None]
    np.testing.assert_allclose(a, jnp.broadcast_to(expected, a.shape), rtol=1e-5)


def test_rise_takes_no_more_memory_for_more_samples():
    net, params, x, target = load("vgg")

    def temporary(samples):
        explain = jax.jit(jaxattr.rise(plain(net, params), samples=samples))
        compiled = explain.lower(x, target, key=KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(16 * 1000) - temporary(16 * 10) < 16 * 1000 * 8  # their numbers alone


def test_blend():
    """A mask of a level's number over the last is that level; the derivative is the next step's."""
    levels = jax.random.normal(KEY, (4, 2, 3, 3, 2))
    for i, level in enumerate(levels):
        np.testing.assert_allclose(
            blend(levels, jnp.full((2, 1, 3, 3), i / 3))[:, 0], level, rtol=1e-5, atol=1e-6
        )
    total = lambda m: blend(levels, m).sum()
    step = 3 * (levels[1] - levels[0]).sum(-1)[:, None]
    np.testing.assert_allclose(jax.grad(total)(jnp.zeros((2, 1, 3, 3))), step, rtol=1e-5)
    assert not jnp.any(jax.grad(total)(jnp.ones((2, 1, 3, 3))))


@pytest.mark.parametrize("levels", [blur_pyramid, fade_pyramid])
def test_pyramids_are_torchrays(levels):
    x = load("vgg").x
    theirs = peer("perturbations")["extremal.pyramid." + levels.__name__.removesuffix("_pyramid")]
    assert relative_error(levels(x)[:, 0], theirs) < 1e-6
    np.testing.assert_array_equal(levels(x, levels=3)[-1], x)


EXTREMAL = {
    "blur": {},
    "blur_jitter": {"flip": True},
    "fade": {"pyramid": fade_pyramid},
    "fade_dual": {"pyramid": fade_pyramid, "game": dual},
    "fade_contrastive": {"pyramid": fade_pyramid, "score": scores.margin},
}


@pytest.mark.parametrize(
    "array", mostly_slow(EXTREMAL, ["blur_jitter", "fade_dual", "fade_contrastive"])
)
def test_extremal_perturbation_follows_torchray(array):
    """The same curves of reward and penalty from the same start, and the same masks."""
    theirs = peer("perturbations")
    history = theirs[f"extremal.{array}.history"]
    net, params, x, target = load("vgg")
    options = {"flip": False} | EXTREMAL[array]

    explain = jaxattr.extremal_perturbation_details(
        plain(net, params),
        areas=(0.1, 0.3),
        steps=24,  # TorchRay returns the masks before its 25th
        spacing=4,
        sigma=8,
        init=theirs["extremal.start"],
        **options,
    )
    fit = jax.jit(explain)(x[:1], target[:1])
    reward, penalty = -fit.losses["reward"][0], -fit.losses["area"][0]
    theirs_reward, theirs_penalty = history[:, 0, :24], history[:, 1, :24]
    if array == "fade_contrastive":  # TorchRay's is right in sum over areas only
        reward, theirs_reward = reward.sum(0), theirs_reward.sum(0)
    assert relative_error(reward, theirs_reward) < 1e-5
    assert relative_error(penalty, theirs_penalty) < 1e-5
    assert relative_error(fit.masks[0], theirs[f"extremal.{array}"]) < 1e-5


@pytest.mark.slow
def test_extremal_perturbation_favours_no_side():
    """Of a mirrored image by a mirrored classifier it is the mirrored mask."""
    explain = partial(
        jaxattr.extremal_perturbation, areas=(0.2,), steps=6, spacing=1, sigma=2, flip=False
    )
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        f = plain(net, params)
        a = jax.jit(explain(f))(x, target)
        b = jax.jit(explain(lambda x: f(x[:, :, ::-1])))(x[:, :, ::-1], target)
    np.testing.assert_allclose(a, b[:, :, ::-1], rtol=1e-8)


def test_extremal_perturbation_finds_an_area():
    """Of a classifier that sees a square, the square, and no more than the area asked for."""
    x = jnp.zeros((1, 20, 24, 1)).at[0, 8:12, 10:14].set(1)
    f = lambda x: 5 * x[:, 8:12, 10:14].sum((1, 2))
    explain = jaxattr.extremal_perturbation_details(
        f, areas=(0.05, 0.15), steps=400, pyramid=fade_pyramid, spacing=2, sigma=2.0, flip=False
    )
    masks = jax.jit(explain)(x, jnp.array([0])).masks[0]
    assert (masks[:, 8:12, 10:14] > 0.8).all()
    share = (masks > 0.5).sum((1, 2)) / (23 * 27)  # pixels of the canvas
    np.testing.assert_allclose(share, [0.05, 0.15], atol=0.01)


def test_games():
    measure, mask = lambda m: 3 * m + 1, jnp.array([0.25])
    assert preserve(measure, mask) == 1.75
    assert delete(measure, mask) == -3.25
    assert dual(measure, mask) == -1.5


@pytest.mark.slow
def test_meaningful_perturbation_is_its_definition():
    """Five steps of Adam by hand, from scipy's blurs and a dense gradient."""
    options = {"lambda_1": 0.02, "lambda_2": 0.05, "beta": 2.5}
    start = np.random.default_rng(0).uniform(0.2, 0.9, (4, 5))
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        x, target, f = x[:1], target[:1], plain(net, params)
        explain = jaxattr.meaningful_perturbation_details(
            f, steps=5, spacing=4, blur_sigma=3.0, mask_sigma=2.0, jitter=0, init=start, **options
        )
        fit = jax.jit(explain)(x, target, key=KEY)
        blurred = scipy.ndimage.gaussian_filter(x, (0, 3, 3, 0), mode="nearest", truncate=4)
        units = np.kron(np.eye(20).reshape(20, 4, 5), np.ones((4, 4)))[:, :16, :18]
        units = scipy.ndimage.gaussian_filter(units, (0, 2, 2), mode="nearest", truncate=4)

        def terms(p):
            mask = jnp.einsum("n,nhw->hw", p.ravel(), units)[..., None]
            probability = jax.nn.softmax(f(mask * x + (1 - mask) * blurred))[0, target[0]]
            lengths = (
                jnp.hypot(p[min(i + 1, 3), j] - p[i, j], p[i, min(j + 1, 4)] - p[i, j])
                for i in range(4)
                for j in range(5)
                if (i, j) != (3, 4)
            )
            variation = options["lambda_2"] * sum(d ** options["beta"] for d in lengths)
            return probability, options["lambda_1"] * jnp.abs(1 - p).sum(), variation

        p, first, second, curve = start, 0, 0, []
        for t in range(1, 6):
            curve.append(terms(p))
            g = jax.grad(lambda p: sum(terms(p)))(jnp.asarray(p))
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            p = p - 0.1 * first / (1 - 0.9**t) / ((second / (1 - 0.999**t)) ** 0.5 + 1e-8)
            p = np.clip(p, 0, 1)
        mask = np.einsum("n,nhw->hw", p.ravel(), units)
    found = [fit.losses[name][0] for name in ("score", "size", "variation")]
    np.testing.assert_allclose(np.transpose(found), np.array(curve), rtol=1e-8)
    np.testing.assert_allclose(fit.grid[0], p, rtol=1e-8)
    np.testing.assert_allclose(fit.attribution[0, ..., 0], 1 - mask, rtol=1e-7)


@pytest.mark.slow
def test_meaningful_perturbation_starts_from_the_smallest_disc_that_suffices():
    net, params, x, target = load("vgg")
    f = plain(net, params)
    fit = jax.jit(
        jaxattr.meaningful_perturbation_details(
            f, steps=1, spacing=2, mask_sigma=1.0, jitter=0, learning_rate=0.0
        )
    )(x, target, key=KEY)
    discs = _discs((8, 9))
    blurred = gaussian_blur(x, 10.0, reach=ceiling_reach)
    for i in range(len(x)):
        p = []
        for disc in discs:
            mask = blurred_grid(jnp.asarray(1 - disc), (16, 18), spacing=2, sigma=1.0)[..., None]
            logits = f((mask * x[i] + (1 - mask) * blurred[i])[None])
            p.append(scores.probability(logits, target[i : i + 1])[0])
        first = next(n for n, q in enumerate(p) if (q - p[-1]) / (p[0] - p[-1]) < 0.01)
        np.testing.assert_array_equal(fit.grid[i], 1 - discs[first])
        assert first > 0


def test_meaningful_perturbation_leaves_an_image_whole_that_is_not_seen():
    f = lambda x: jnp.zeros((len(x), 4))
    x = load("vgg").x
    explain = jax.jit(jaxattr.meaningful_perturbation(f, steps=5, noise=0.1))
    a = explain(x, jnp.zeros(3, int), key=KEY)
    np.testing.assert_allclose(a, 0, atol=1e-6)


def test_images_move_together_and_repeat_their_edges():
    images = jax.random.normal(KEY, (2, 3, 6, 7, 1))
    wide = np.pad(images, ((0, 0), (0, 0), (2, 1), (2, 1), (0, 0)), mode="edge")
    crops = [wide[:, :, i : i + 6, j : j + 7] for i in range(4) for j in range(4)]
    found, move = set(), jax.jit(lambda key, images: _moved(key, images, 4))
    for seed in range(60):
        moved = move(jax.random.key(seed), images)
        (place,) = [n for n, crop in enumerate(crops) if np.array_equal(moved, crop)]
        found.add(place)
    assert len(found) == 16


@pytest.mark.parametrize("method", mostly_slow(LEARNED, ["meaningful_perturbation"]))
def test_fits(method):
    """The plain method is `.attribution`; losses fall; progress is told and changes nothing."""
    net, params, x, target = load("resnet")
    f, told = plain(net, params), []
    fit = LEARNED[method](f, steps=8)
    first = jax.jit(fit)(x, target, key=KEY)
    watched = jax.jit(LEARNED[method](f, steps=8, progress=told.append))(x, target, key=KEY)
    jax.effects_barrier()
    jax.tree.map(np.testing.assert_array_equal, first, watched)
    assert sorted(told) == list(range(1, 9))
    same = getattr(jaxattr, method)(f, steps=8, **LEARNED[method].keywords)
    np.testing.assert_array_equal(first.attribution, jax.jit(same)(x, target, key=KEY))
    assert first.attribution.shape == (*x.shape[:3], 1)
    assert first.attribution.min() >= 0
    assert first.attribution.max() <= 1
    total = sum(first.losses.values())
    areas = (2,) if method == "extremal_perturbation" else ()
    assert total.shape == (3, *areas, 8)
    assert (total[..., -1] < total[..., 0]).all()


@pytest.mark.parametrize("method", ["occlusion", "rise"])
def test_progress(method):
    options = {"occlusion": {"window": 5}, "rise": {"samples": 21}}[method]
    net, params, x, target = load("vgg")
    told = []
    explain = getattr(jaxattr, method)(plain(net, params), chunk=2, progress=told.append, **options)
    jax.jit(explain)(x, target, key=KEY)
    jax.effects_barrier()
    assert max(told) == {"occlusion": 5 * 6 + 1, "rise": 21}[method]
    assert len(set(told)) == len(told) > 5


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("occlusion", {"window": 17}, "window is 17 pixels long; the image has 16"),
        ("occlusion", {"window": 0}, "window is 0"),
        ("occlusion", {"window": (4, 2), "stride": 3}, "stride is 3, which leaves out pixels"),
        ("occlusion", {"chunk": 0}, "chunk is 0"),
        ("rise", {"samples": 0}, "samples is 0"),
        ("rise", {"probability": 0.0}, "probability is 0.0; expected more than 0"),
        ("meaningful_perturbation", {"steps": 0}, "steps is 0"),
        ("meaningful_perturbation", {"spacing": 0}, "spacing is 0"),
        ("meaningful_perturbation", {"jitter": -1}, "jitter is -1"),
        ("meaningful_perturbation", {"beta": 0.5}, "beta is 0.5; expected at least 1"),
        ("extremal_perturbation", {"areas": (0.1, 1.5)}, r"areas is \(0.1, 1.5\); expected shares"),
        ("extremal_perturbation", {"areas": ()}, "expected shares"),
        ("extremal_perturbation", {"sigma": 0}, "sigma is 0"),
        ("extremal_perturbation", {"spacing": 0}, "spacing is 0"),
        ("extremal_perturbation", {"pyramid": partial(fade_pyramid, levels=1)}, "levels is 1"),
    ],
)
def test_bad_options(method, options, message):
    net, params, x, target = load("vgg")
    with pytest.raises(ValueError, match=message):
        getattr(jaxattr, method)(plain(net, params), **options)(x, target, key=KEY)
