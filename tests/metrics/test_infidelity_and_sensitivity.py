"""Infidelity and max-sensitivity, by hand, against Captum, and on known maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics

KEY = jax.random.key(0)
WEIGHTS = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def smooth(x):
    return jnp.tanh(linear(x) / 16) * 9


def images(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X, TARGET = images(2, 4, 4, 3), jnp.array([0, 2])


@pytest.mark.parametrize("perturb", [metrics.noisy_baseline(), metrics.square(size=2)])
def test_the_gradient_of_a_linear_model_is_faithful_and_nothing_else(perturb):
    measure = jax.jit(metrics.infidelity(linear, perturb=perturb))
    a = jnp.asarray(WEIGHTS.T[TARGET]).reshape(X.shape)
    np.testing.assert_allclose(measure(X, TARGET, a, key=KEY).score, 0, atol=1e-8)
    assert (measure(X, TARGET, 1.5 * a, key=KEY).score > 1e-2).all()


def test_infidelity_by_hand():
    a, std, samples = images(2, 4, 4, 3, seed=5), 0.3, 7
    measure = partial(metrics.infidelity, smooth, perturb=metrics.gaussian(std=std))
    found = jax.jit(measure(samples=samples, chunk=3))(X, TARGET, a, key=KEY)
    taken = [std * jax.random.normal(key, X.shape[1:]) for key in jax.random.split(KEY, samples)]
    told = np.array([np.tensordot(a, t, 3) for t in taken])
    of_class = lambda x: np.asarray(smooth(x))[np.arange(2), TARGET]
    seen = np.array([of_class(X) - of_class(X - t) for t in taken])
    np.testing.assert_allclose(found.score, ((told - seen) ** 2).mean(0), rtol=1e-5)
    beta = (told * seen).sum(0) / (told**2).sum(0)
    rescaled = jax.jit(measure(samples=samples, rescale=True))
    for scale in (1, -3):
        ours = rescaled(X, TARGET, scale * a, key=KEY)
        np.testing.assert_allclose(ours.score, ((beta * told - seen) ** 2).mean(0), rtol=1e-4)


def test_infidelity_rescaled_is_captums(torch):
    captum = pytest.importorskip("captum.metrics", reason="compares with Captum")
    a, samples = images(2, 4, 4, 3, seed=5), 5
    draws = [0.2 * jax.random.normal(key, X.shape[1:]) for key in jax.random.split(KEY, samples)]
    left = [torch.tensor(np.stack([d, d])) for d in draws]

    def perturb(x):
        taken = left.pop(0)
        return taken, x - taken

    theirs = captum.infidelity(
        lambda x: torch.tanh(x.reshape(len(x), -1) @ torch.tensor(WEIGHTS) / 16) * 9,
        perturb,
        torch.tensor(np.array(X)),
        torch.tensor(np.array(a)),
        target=torch.tensor(np.array(TARGET)).long(),
        n_perturb_samples=samples,
        max_examples_per_batch=2,
        normalize=True,
    )
    ours = jax.jit(metrics.infidelity(smooth, samples=samples, rescale=True))
    np.testing.assert_allclose(ours(X, TARGET, a, key=KEY).score, theirs, rtol=1e-4)


def test_a_square_takes_that_many_pixels_wherever():
    draw = jax.jit(jax.vmap(lambda key: metrics.square(size=2)(key, jnp.ones((4, 5, 3)))))
    taken = draw(jax.random.split(KEY, 100))
    np.testing.assert_array_equal(taken.sum((1, 2, 3)), 12)
    assert (taken.sum((0, 3)) > 0).all()


def test_infidelity_names_its_faults():
    measure = metrics.infidelity(linear)
    with pytest.raises(ValueError, match=r"attribution has shape \(2, 4, 4, 2\)"):
        measure(X, TARGET, X[..., :2], key=KEY)
    with pytest.raises(ValueError, match=r"infidelity draws random numbers"):
        measure(X, TARGET, X, key=None)
    broken = jax.jit(measure)(X, TARGET, X.at[1, 0, 0, 0].set(jnp.nan), key=KEY)
    assert broken.valid.tolist() == [True, False]


def test_sensitivity_of_known_maps():
    x = X
    constant = lambda x, target, key=None: jnp.ones_like(x)
    steep = lambda x, target, key=None: 5.0 * x
    assert jax.jit(metrics.max_sensitivity(constant))(x, TARGET, key=KEY).score.tolist() == [0, 0]
    run = lambda **options: jax.jit(metrics.max_sensitivity(steep, **options))(x, TARGET, key=KEY)
    found = run(radius=0.1, samples=30)
    most = 0.1 * np.sqrt(48) / np.linalg.norm(np.asarray(x).reshape(2, -1), axis=1)
    typical = most / np.sqrt(3)  # the root mean square of a uniform draw
    assert ((typical < found.score) & (found.score < most)).all()
    np.testing.assert_allclose(run(radius=0.2, samples=30).score, 2 * found.score, rtol=1e-4)


def test_sensitivity_of_a_map_of_zeros_is_no_number():
    zero = lambda x, target, key=None: x * jnp.array([0.0, 1.0])[:, None, None, None]
    found = jax.jit(metrics.max_sensitivity(zero))(X, TARGET, key=KEY)
    assert found.valid.tolist() == [False, True]


def test_a_random_method_draws_the_same_for_every_image():
    noisy = lambda x, target, key=None: jax.random.normal(key, x.shape)
    found = jax.jit(metrics.max_sensitivity(noisy))(X, TARGET, key=KEY)
    np.testing.assert_allclose(found.score, 0, atol=1e-6)
