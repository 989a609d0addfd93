"""Insertion, deletion, complementary insertion, MoRF and LeRF."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import peer

from jaxattr import heatmap, metrics
from jaxattr.image.maps import resize

RISE = {name.removeprefix("rise."): a for name, a in peer("papers").items() if "rise." in name}
X = RISE["x"]
SALIENCY = peer("papers")["rise.saliency"]
TARGET = RISE["probabilities"].argmax(1)


def net(x):
    """The network that RISE's own code was run on: 8x8 average pool, torch's flatten, dense."""
    pooled = x.reshape(-1, 4, 8, 4, 8, 3).mean((2, 4))
    return pooled.transpose(0, 3, 1, 2).reshape(len(x), -1) @ RISE["weight"].T + RISE["bias"]


def linear(weights):
    """A classifier of one logit that is linear in the image, and a second one of zero."""
    return lambda x: jnp.stack([(x * weights).sum((1, 2, 3)), jnp.zeros(len(x))], -1)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_data_of_rise_has_no_ties_and_the_network_is_theirs():
    assert all(len(np.unique(s)) == s.size for s in SALIENCY)
    np.testing.assert_allclose(jax.nn.softmax(net(X)), RISE["probabilities"], rtol=1e-5)


@pytest.mark.parametrize("step", [32, 100])
@pytest.mark.parametrize("mode", ["ins", "del"])
def test_reproduces_rise(mode, step):
    game = {"ins": metrics.insertion, "del": metrics.deletion}[mode](net, step=step)
    curve, score, valid = jax.jit(game)(X, TARGET, SALIENCY)
    np.testing.assert_allclose(curve, RISE[f"{mode}.{step}"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(score, RISE[f"auc.{mode}.{step}"], rtol=0, atol=1e-5)
    assert valid.all()


def test_blur_reproduces_rise():
    np.testing.assert_allclose(metrics.blur(X), RISE["blurred"], rtol=1e-5, atol=1e-6)


def test_blur_has_the_published_weights():
    dot = jnp.zeros((1, 31, 31, 1)).at[0, 15, 15, 0].set(1)
    row = metrics.blur(dot)[0, 10:21, :, 0].sum(1)
    half = [0.08795815, 0.08889612, 0.0904742, 0.09219112, 0.09348939, 0.09398206]
    np.testing.assert_allclose(row, half + half[-2::-1], rtol=1e-6)


def test_blur_refuses_an_even_size():
    with pytest.raises(ValueError, match="size is 10; expected an odd"):
        metrics.blur(X, size=10)


GAMES = [
    partial(metrics.insertion, step=5, baseline=jnp.zeros_like),
    partial(metrics.deletion, step=5),
    partial(metrics.morf, fraction=0.9, steps=6),
    partial(metrics.lerf, fraction=0.9, steps=6),
]


@pytest.mark.parametrize("game", [GAMES[0], GAMES[2]])
@pytest.mark.parametrize("chunk", [1, 3])
def test_chunk_changes_nothing(game, chunk):
    x, target, a = images(2, 5, 7, 3) + 1, np.array([0, 1]), images(2, 5, 7, 1, seed=1)
    f = lambda x: jnp.stack([jnp.tanh(x).sum((1, 2, 3)), (x**2).sum((1, 2, 3))], -1)
    ours = jax.jit(game(f, chunk=chunk))(x, target, a)
    whole = jax.jit(game(f, chunk=100))(x, target, a)
    np.testing.assert_allclose(ours.curve, whole.curve, rtol=1e-5)


@pytest.mark.parametrize("game", GAMES[1:3])
def test_batch_is_one_by_one(game):
    x, target, a = images(3, 5, 7, 3) + 1, np.array([0, 1, 0]), images(3, 5, 7, 3, seed=1)
    f = lambda x: jnp.stack([jnp.tanh(x).sum((1, 2, 3)), (x**2).sum((1, 2, 3))], -1)
    measure = jax.jit(game(f))
    together = measure(x, target, a)
    for i in range(3):
        alone = measure(x[i : i + 1], target[i : i + 1], a[i : i + 1])
        np.testing.assert_allclose(alone.curve[0], together.curve[i], rtol=1e-5)
        np.testing.assert_allclose(alone.score[0], together.score[i], rtol=1e-5)


@pytest.mark.parametrize("game", GAMES[::3])
def test_f_is_traced_once(game):
    traces = []

    def f(x):
        traces.append(x.shape)
        return x.sum((1, 2))

    measure = jax.jit(game(f))
    x, target, a = images(2, 4, 4, 3), np.array([0, 1]), images(2, 4, 4, seed=1)
    measure(x, target, a)
    known = len(traces)
    measure(x + 1, target, a)
    assert len(traces) == known
    assert len([shape for shape in traces if shape[0] != 2]) == 1  # of the chunks


def optimum(f, x):
    """The map that is the ranking: what each pixel adds to a logit linear in the image."""
    return jax.grad(lambda x: f(x)[:, 0].sum())(x) * x


def test_insertion_by_the_true_ranking_beats_all_others():
    weights, x, target = images(1, 3, 3, 3), images(1, 3, 3, 3, seed=1), np.array([0])
    f = linear(weights)
    game = jax.jit(metrics.insertion(f, step=1, baseline=jnp.zeros_like, score=metrics.logit))
    gains = np.sort(np.asarray(heatmap(optimum(f, x))).ravel())[::-1]
    best = game(x, target, optimum(f, x))
    np.testing.assert_allclose(best.curve[0], np.cumsum([0, *gains]), atol=1e-5)
    others = images(200, 3, 3, seed=2)
    scores = jax.jit(jax.vmap(lambda a: game(x, target, a[None]).score[0]))(others)
    assert scores.max() < best.score
    worst = game(x, target, -optimum(f, x))
    assert scores.min() > worst.score
    # each pixel is put in at a place uniform among 9: it counts for half of the curve
    np.testing.assert_allclose(best.score + worst.score, gains.sum(), rtol=1e-5)


def test_random_maps_of_a_linear_logit_score_half_the_difference():
    x, target = images(1, 4, 4, 1), np.array([0])
    f = linear(images(1, 4, 4, 1, seed=3))
    game = metrics.insertion(f, step=1, baseline=jnp.zeros_like, score=metrics.logit)
    scores = jax.jit(jax.vmap(lambda a: game(x, target, a[None]).score[0]))(images(2000, 4, 4))
    error = 4 * scores.std() / np.sqrt(2000)  # one in 16,000
    np.testing.assert_allclose(scores.mean(), f(x)[0, 0] / 2, rtol=0, atol=error)


def test_constant_image_and_weights_give_a_straight_line_whatever_the_map():
    f = linear(jnp.ones((1, 4, 4, 2)))
    game = metrics.insertion(f, step=2, baseline=jnp.zeros_like, score=metrics.logit)
    found = game(jnp.ones((1, 4, 4, 2)), np.array([0]), images(1, 4, 4))
    np.testing.assert_allclose(found.curve[0], 32 * np.linspace(0, 1, 9), rtol=1e-6)
    np.testing.assert_allclose(found.score, 16, rtol=1e-6)


def test_ties_fall_in_reading_order():
    f = linear(jnp.asarray(2.0 ** np.arange(6).reshape(1, 2, 3, 1)))
    x, target = jnp.ones((1, 2, 3, 1)), np.array([0])
    tied = jnp.zeros((1, 2, 3)).at[0, 1, 0].set(1).at[0, 0, 1].set(-0.0)
    options = {"baseline": jnp.zeros_like, "score": metrics.logit}
    first = jax.jit(metrics.insertion(f, step=1, **options))(x, target, tied)
    np.testing.assert_array_equal(jnp.diff(first.curve[0]), [8, 1, 2, 4, 16, 32])
    least = jax.jit(metrics.lerf(f, fraction=1, steps=6, score=metrics.logit))(x, target, tied)
    gone = -63 * jnp.diff(least.curve[0])
    np.testing.assert_allclose(gone, [1, 2, 4, 16, 32, 8], rtol=1e-5)


def test_deletion_is_insertion_backwards():
    x, target, a = images(2, 4, 6, 3), np.array([0, 2]), images(2, 4, 6, seed=1)
    f = lambda x: jnp.tanh(x).sum((1, 2)) ** 2
    removed = jax.jit(metrics.deletion(f, step=4))(x, target, a)
    added = jax.jit(metrics.insertion(f, step=4, baseline=jnp.zeros_like))(x, target, -a)
    np.testing.assert_allclose(removed.curve, added.curve[:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(removed.score, added.score, rtol=1e-5)


@pytest.mark.parametrize(
    ("reduce", "order"),
    [(heatmap, [2, 1, 0]), (metrics.positive_sum, [0, 2, 1]), (metrics.magnitude_sum, [0, 1, 2])],
)
def test_reduction_is_the_callers(reduce, order):
    a = jnp.array([[[[9.0, -20.0], [-5.0, 2.0], [2.0, 3.0]]]])
    f = linear(jnp.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1))
    options = {"baseline": jnp.zeros_like, "score": metrics.logit, "reduce": reduce}
    found = jax.jit(metrics.insertion(f, step=1, **options))(
        jnp.ones((1, 1, 3, 1)), np.array([0]), a
    )
    np.testing.assert_array_equal(jnp.diff(found.curve[0]), 2.0 ** np.array(order))


def test_maps_with_one_channel_or_none_are_the_same_and_reduced_too():
    x, target, a = images(1, 4, 4, 3), np.array([1]), images(1, 4, 4, seed=1)
    game = metrics.insertion(lambda x: x.sum((1, 2)), step=3, reduce=metrics.magnitude_sum)
    np.testing.assert_array_equal(game(x, target, a).curve, game(x, target, a[..., None]).curve)
    np.testing.assert_array_equal(game(x, target, a).curve, game(x, target, abs(a)).curve)


@pytest.mark.parametrize(("game", "bad"), [(GAMES[0], np.nan), (GAMES[3], np.inf)])
def test_a_map_that_is_not_finite_has_no_score_and_spoils_no_other(game, bad):
    x, target = images(3, 4, 4, 3) + 1, np.array([0, 1, 2])
    a = images(3, 4, 4, 3, seed=1)
    broken = a.copy()
    broken[1, 2, 3, 0] = bad
    measure = jax.jit(game(lambda x: x.sum((1, 2))))
    whole, found = measure(x, target, a), measure(x, target, broken)
    assert found.valid.tolist() == [True, False, True]
    assert np.isnan(found.score[1])
    assert np.isnan(found.curve[1]).all()
    np.testing.assert_array_equal(found.curve[::2], whole.curve[::2])
    average = metrics.mean(found.score, found.valid)
    np.testing.assert_allclose(average.mean, whole.score[::2].mean(), rtol=1e-6)
    assert average.number == 2


def test_a_class_out_of_range_is_an_error_and_under_jit_no_score():
    x, a = images(2, 4, 4, 3), images(2, 4, 4)
    measure = metrics.insertion(lambda x: x.sum((1, 2)), step=4)
    with pytest.raises(ValueError, match=r"target\[1\] is 3; the classes are 0 to 2"):
        measure(x, np.array([0, 3]), a)
    assert jax.jit(measure)(x, np.array([0, 3]), a).valid.tolist() == [True, False]
    assert jax.jit(measure)(x, np.array([-1, 0]), a).valid.tolist() == [False, True]


def test_a_model_that_gives_nan_has_no_score():
    f = lambda x: jnp.log(x.sum((1, 2)))  # of the zero image too
    found = jax.jit(metrics.deletion(f, step=4, score=metrics.logit))(
        np.ones((1, 4, 4, 3), np.float32), np.array([0]), images(1, 4, 4)
    )
    assert not found.valid[0]
    assert np.isnan(found.score[0])


def test_bad_arguments_say_what_to_do():
    x, target = images(2, 4, 4, 3), np.array([0, 1])
    f = lambda x: x.sum((1, 2))
    with pytest.raises(ValueError, match=r"attribution has shape \(2, 2, 2\).*see maps.resize"):
        metrics.insertion(f)(x, target, images(2, 2, 2))
    resized = resize(jnp.asarray(images(2, 2, 2)), (4, 4))
    assert jax.jit(metrics.insertion(f))(x, target, resized).valid.all()
    with pytest.raises(ValueError, match="step is 0"):
        metrics.insertion(f, step=0)
    with pytest.raises(ValueError, match="chunk is 0"):
        metrics.morf(f, chunk=0)
    with pytest.raises(ValueError, match=r"fraction is 5; expected more than 0 and at most 1"):
        metrics.lerf(f, fraction=5)
    with pytest.raises(ValueError, match=r"fraction is 0.05, which is less than one of 16 pixels"):
        metrics.morf(f)(x, target, x)


def test_complementary_insertion_of_one_class_is_insertion_by_the_negated_map():
    x, a = images(2, 4, 6, 5), images(2, 4, 6, 5, seed=1)
    f = lambda x: jnp.tanh(x).sum((1, 2))
    ours = jax.jit(metrics.complementary_insertion(f, step=4))(x, np.array([[3], [0]]), a)
    theirs = jax.jit(metrics.insertion(f, step=4))(x, np.array([3, 0]), -a)
    np.testing.assert_array_equal(ours.curve, theirs.curve)


def test_complementary_insertion_averages_over_the_classes_there_are():
    x, a = images(3, 4, 6, 5), images(3, 4, 6, seed=1)
    f = lambda x: jnp.tanh(x).sum((1, 2))
    others = np.array([[1, 4, -1], [2, -1, -1], [-1, -1, -1]])
    found = jax.jit(metrics.complementary_insertion(f, step=4))(x, others, a)
    alone = jax.jit(metrics.insertion(f, step=4))
    each = [alone(x, np.full(3, k), -a).score for k in range(5)]
    np.testing.assert_allclose(found.score[0], (each[1][0] + each[4][0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found.score[1], each[2][1], rtol=1e-6)
    assert found.valid.tolist() == [True, True, False]
    assert np.isnan(found.score[2])


def test_complementary_insertion_refuses_classes_that_are_not():
    x, a = images(1, 4, 4, 3), images(1, 4, 4)
    measure = metrics.complementary_insertion(lambda x: x.sum((1, 2)))
    with pytest.raises(ValueError, match=r"others\[0, 1\] is 3; the classes are 0 to 2"):
        measure(x, np.array([[1, 3]]), a)
    with pytest.raises(ValueError, match=r"others has shape \(1,\)"):
        measure(x, np.array([1]), a)


def test_morf_of_a_linear_logit():
    x = jnp.arange(1.0, 21).reshape(1, 4, 5, 1)
    f = linear(jnp.ones((1, 4, 5, 1)))
    most = jax.jit(metrics.morf(f, fraction=0.3, steps=4))(x, np.array([0]), x)
    # 0, 1.5, 3, 4.5 and 6 pixels, rounded to even
    left = (210 - np.array([0, 20 + 19, 57, 74, 105])) / 210
    np.testing.assert_allclose(most.curve[0], left, rtol=1e-6)
    np.testing.assert_allclose(most.score[0], np.trapezoid(left, [0, 2, 3, 4, 6]) / 6, rtol=1e-6)
    least = jax.jit(metrics.lerf(f, fraction=0.3, steps=4))(x, np.array([0]), x)
    np.testing.assert_allclose(least.curve[0, -1], (210 - 21) / 210, rtol=1e-6)


def test_lerf_is_morf_of_the_negated_map():
    x, target, a = images(2, 6, 6, 3) + 1, np.array([0, 2]), images(2, 6, 6, 3, seed=1)
    f = lambda x: jnp.tanh(x).sum((1, 2))
    ours, theirs = (jax.jit(game(f, fraction=0.5)) for game in (metrics.lerf, metrics.morf))
    np.testing.assert_array_equal(ours(x, target, a).curve, theirs(x, target, -a).curve)


def test_change_of_probability_over_the_whole_image():
    x, target, a = images(2, 4, 4, 3), np.array([0, 2]), images(2, 4, 4, seed=1)
    f = lambda x: jnp.tanh(x).sum((1, 2))
    game = metrics.morf(
        f, fraction=1, steps=8, score=metrics.probability, change=metrics.absolute_change
    )
    found, kept = game(x, target, a), jax.jit(metrics.deletion(f, step=2))(x, target, a)
    np.testing.assert_allclose(found.curve, abs(kept.curve - kept.curve[:, :1]), atol=1e-6)


def test_a_logit_that_is_not_positive_has_no_ratio():
    f = linear(jnp.ones((1, 4, 4, 1)))
    x = jnp.stack([jnp.ones((4, 4, 1)), -jnp.ones((4, 4, 1))])
    found = jax.jit(metrics.morf(f, fraction=0.5))(x, np.array([0, 0]), images(2, 4, 4))
    assert found.valid.tolist() == [True, False]
    assert np.isnan(found.curve[1]).all()


def test_low_precision_is_measured_in_float32():
    x, a = jnp.asarray(images(1, 4, 4, 3), jnp.bfloat16), images(1, 4, 4)
    found = jax.jit(metrics.insertion(lambda x: x.sum((1, 2)), step=4))(x, np.array([0]), a)
    assert found.curve.dtype == found.score.dtype == jnp.float32
