"""DMBP and LPR: the fast paths equal the papers' own definitions."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from modern import MODERN, images
from nets import NETS, load, plain
from peers import peer, relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr import sites, with_rules
from jaxattr.methods.dmbp import disentangling, dmbp_details, guided, positive, positive_negative
from jaxattr.methods.lpr import smoothed
from jaxattr.methods.plugins import Plugin, convolution
from jaxattr.rules import gates
from jaxattr.scores import log_probability, probability
from jaxattr.tracing.freeze import freeze

KEY = jax.random.key(0)


def activation_sites(f, x):
    return [s for s in sites(f, x) if s.kind == "activation"]


def masks_for(f, x):
    places = activation_sites(f, x)
    keys = jax.random.split(KEY, len(places))
    return {
        s.position: jax.random.uniform(k, s.shape, s.dtype)
        for k, s in zip(keys, places, strict=True)
    }


def picked(logits, target):
    return logits[jnp.arange(len(target)), target]


def defined(net, params, x, target, masks):
    """The paper's `y+`: `<grad_x F+, x> + sum_l <grad_b_l F+, b_l>` by the masked backward pass.

    Biases are found as parameters: a BatchNorm's shift and a layer's bias, offsets of saturated
    ReLU6 units as the rest of the affine function, which is what remains of `y` with masks of one.
    """

    def score(params, x):
        f = with_rules(plain(net, params), {"activation": gates.masked(masks)})
        return picked(f(x), target)

    gradient = jax.grad(lambda x: score(params, x).sum())(x)
    return (gradient * x).sum((1, 2, 3)), gradient


@pytest.mark.parametrize("name", mostly_slow(["tiny", *NETS], ["tiny"]))
def test_positive_part_is_a_masked_forward_pass(name):
    """`<grad_x F+, x>` by the masked rule equals the frozen forward pass without biases."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        masks = masks_for(f, x)
        y_plus, _ = jax.jit(lambda x: defined(net, params, x, target, masks))(x)
        frozen = jax.jit(lambda x, m: jaxattr.freeze(f, x).logits(x, m, bias=False))
        fast = frozen(x, list(masks.values()))
        assert relative_error(picked(fast, target), y_plus) < 1e-10


@pytest.mark.slow
def test_bias_terms():
    """With biases: `y+ = <grad_x F+, x> + sum_l <grad_b_l F+, b_l>`, biases as parameters."""
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        f = plain(net, params)
        masks = masks_for(f, x)
        y_plus, _ = defined(net, params, x, target, masks)
        for i in range(len(x)):
            one = {k: m[i : i + 1] for k, m in masks.items()}

            def score(biases, i=i, one=one):
                g = with_rules(plain(net, params | biases), {"activation": gates.masked(one)})
                return g(x[i : i + 1])[0, target[i]]

            biases = {k: v for k, v in params.items() if k.endswith("bias")}
            terms = sum((g * biases[k]).sum() for k, g in jax.grad(score)(biases).items())
            y_plus = y_plus.at[i].add(terms)
        fast = jaxattr.freeze(f, x).logits(x, list(masks.values()))
        assert relative_error(picked(fast, target), y_plus) < 1e-10


@pytest.mark.slow
def test_parts_of_todays_networks_are_complete():
    """Positive, negative and nuisance parts sum to what the held view makes of the image."""
    with enable_x64(True):
        f, x, target = MODERN["vit"](), images(), jnp.array([1, 3])
        found = jax.jit(dmbp_details(f, steps=3))(x, target)
        parts = (found.positive + found.negative + found.nuisance).sum((1, 2, 3))
        linear = jax.jit(lambda x: freeze(f, x).logits(x, bias=False))(x)
        np.testing.assert_allclose(parts, linear[jnp.arange(2), target], rtol=1e-10)
        assert jnp.abs(found.positive).sum() > 0
        assert jnp.isfinite(jax.jit(jaxattr.lpr(f, steps=2))(x, target)).all()


@pytest.mark.parametrize("name", mostly_slow(NETS, ["vgg"]))
def test_mask_gradients_equal_double_backprop(name):
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        masks = masks_for(f, x)

        def double(masks):
            return defined(net, params, x, target, masks)[0].sum()

        def fast(masks):
            logits = jaxattr.freeze(f, x).logits(x, list(masks.values()), bias=False)
            return picked(logits, target).sum()

        ours, theirs = jax.jit(jax.grad(fast))(masks), jax.jit(jax.grad(double))(masks)
        for k in masks:
            assert relative_error(ours[k], theirs[k]) < 1e-10


@pytest.mark.parametrize(
    "loss", mostly_slow([positive, positive_negative, disentangling], [disentangling])
)
@pytest.mark.parametrize("bias", mostly_slow([False, True], [True]))
def test_the_loss_falls(loss, bias):
    net, params, x, target = load("tiny")
    decompose = jaxattr.dmbp_details(plain(net, params), steps=15, loss=loss, bias=bias)
    losses = jax.jit(decompose)(x, target).losses
    assert losses.shape == (3, 15)
    assert (losses[:, -1] < losses[:, 0]).all()


@pytest.mark.parametrize("name", mostly_slow(["tiny", *NETS], ["tiny"]))
def test_the_first_masks_are_those_of_guided_backpropagation(name):
    """Made sharp, they part guided backpropagation from the rest; and they are a good start."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = plain(net, params)
        sharp = lambda *state: tuple(100 * theta for theta in guided(*state))
        decompose = jaxattr.dmbp_details(f, steps=1, learning_rate=0.0, init=sharp)
        found = jax.jit(decompose)(x, target)
        expected = x * jax.jit(jaxattr.guided_backprop(f))(x, target)
        assert relative_error(found.positive, expected) < 1e-10
        short = {init: jaxattr.dmbp_details(f, steps=5, init=init) for init in (guided, 0.0)}
        losses = {init: jax.jit(made)(x, target).losses[:, -1] for init, made in short.items()}
        assert (losses[guided] < losses[0.0]).all()


@pytest.mark.parametrize("per_channel", mostly_slow([False, True], [True]))
def test_mask_shapes(per_channel):
    net, params, x, target = load("vgg")
    f = plain(net, params)
    found = jax.jit(jaxattr.dmbp_details(f, steps=2, per_channel=per_channel))(x, target)
    for mask, site in zip(found.masks, activation_sites(f, x), strict=True):
        ones = [1] * (len(site.shape) - 2)
        assert mask.shape == ((site.shape[0], *ones, site.shape[-1]) if per_channel else site.shape)
        assert 0 <= mask.min() <= mask.max() <= 1


def test_lpr_map_is_that_of_the_learned_rule():
    """`A = x * g_x` with `tanh(theta m g)` at every activation, by a dense backward pass."""
    with enable_x64(True):
        net, params, x, target = load("tiny", "float64")
        f = plain(net, params)
        places = activation_sites(f, x)
        theta = {s.position: 1.5 * jnp.ones(s.shape, x.dtype) for s in places}
        for multiplier in (None, 0.7):
            fixed = {
                k: None if multiplier is None else multiplier * t / 1.5 for k, t in theta.items()
            }
            ruled = with_rules(f, {"activation": gates.learned(theta, fixed)})
            ours = jax.jit(jax.grad(lambda x, ruled=ruled: picked(ruled(x), target).sum()))(x)
            scale = 1.5 * (multiplier or 1)
            plugin = gates.gate(lambda g, z, slope, scale=scale: jnp.tanh(scale * g))
            other = with_rules(f, {"activation": plugin})
            theirs = jax.jit(jax.grad(lambda x, other=other: picked(other(x), target).sum()))(x)
            assert relative_error(ours, theirs) < 1e-12


@cache
def lpr_fit(**options):
    net, params, x, target = load("resnet")
    return jax.jit(jaxattr.lpr_details(plain(net, params), steps=8, **options))(x, target)


FIT_OPTIONS = [
    {"per_channel": True},
    {"sign_aware": False},
    {"smoothing": 1.5},
    {"score": probability},
    {"optimizer": optax.sgd(1.0)},
    {"masks": smoothed(1.0)},
    {"origin": log_probability},
]


@pytest.mark.parametrize(
    "options",
    mostly_slow(FIT_OPTIONS, FIT_OPTIONS[:1]),
    ids=lambda options: next(iter(options)),
)
def test_lpr_options(options):
    found, usual = lpr_fit(**options), lpr_fit()
    assert found.losses.shape == (3, 8)
    assert (found.losses[:, -1] < found.losses[:, 0]).all()
    assert relative_error(found.attribution, usual.attribution) > 1e-3


def test_lpr_by_the_likelihood_starts_from_one_less_the_probabilities():
    """By hand, of a linear layer behind a ReLU: `tanh` of the softmax's gradient."""
    w = jnp.array([[2.0, 0.0], [-3.0, 1.0]])
    f = lambda x: jax.nn.relu(x.reshape(-1, 2)) @ w
    x = jnp.array([0.25, 0.5]).reshape(1, 1, 2, 1)
    fit = jax.jit(jaxattr.lpr(f, steps=1, learning_rate=0.0, origin=log_probability))
    chances = np.exp([-1.0, 0.5]) / np.exp([-1.0, 0.5]).sum()  # x >= 0, so the logits are x @ w
    passed = np.asarray(w) @ ([1.0, 0.0] - chances)
    expected = np.ravel(x) * np.tanh(passed)
    np.testing.assert_allclose(np.ravel(fit(x, jnp.array([0]))), expected, 1e-6)


def test_lpr_by_convolutions():
    """With the identity as kernel it is the map of `theta = 1`; drawn ones are learned."""
    net, params, x, target = load("tiny")
    f = plain(net, params)
    drawn = convolution(KEY)

    def identity(frozen, *_):
        kernels = [jnp.zeros_like(theta) for theta in drawn.start(frozen, 1.0, False)]
        eye = lambda k: jnp.broadcast_to(jnp.eye(k.shape[-1]), (len(k), *k.shape[-2:]))
        return tuple(k.at[:, 1, 1].set(eye(k)) if k.ndim == 5 else k + eye(k) for k in kernels)

    still = {"steps": 1, "learning_rate": 0.0}
    same = jaxattr.lpr(f, plugin=Plugin(identity, drawn.apply), **still)
    fit = jaxattr.lpr_details(f, plugin=drawn, steps=4)
    one, other, found = jax.jit(
        lambda x: (same(x, target), jaxattr.lpr(f, **still)(x, target), fit(x, target))
    )(x)
    assert relative_error(one, other) < 1e-5
    assert [theta.shape[1:] for theta in found.parameters] == [(3, 3, 4, 4), (3, 3, 5, 5), (8, 8)]
    assert (found.losses[:, -1] < found.losses[:, 0]).all()
    with pytest.raises(ValueError, match="size is 2; expected a positive odd"):
        convolution(KEY, size=2)


def test_lpr_between_convolutions():
    """Of relu1 between two convolutions, relu2 before dense layers and relu3, the first alone."""
    net, params, x, target = load("tiny")
    f = plain(net, params)
    fit = jaxattr.lpr_details(f, steps=1, learning_rate=0.0, between_convolutions=True)
    found = jax.jit(fit)(x, target)
    (place, *others) = activation_sites(f, x)
    assert [theta.shape for theta in found.parameters] == [place.shape]

    def plugin(local):
        return (gates.gradient if local.site.position in rest else learned)(local)

    rest = [s.position for s in others]
    secant = jax.jit(lambda x: freeze(f, x).secants(jnp.zeros_like(x))[0])(x)
    learned = gates.learned({place.position: jnp.ones(())}, {place.position: secant})
    ruled = with_rules(f, {"activation": plugin})
    expected = x * jax.jit(jax.grad(lambda x: picked(ruled(x), target).sum()))(x)
    assert relative_error(found.attribution, expected) < 1e-5
    dense = lambda x: jax.nn.relu(x.reshape(len(x), -1)[:, :2]) @ jnp.eye(2)
    with pytest.raises(ValueError, match="none of the 1 activations stands between two of the 0"):
        jax.eval_shape(jaxattr.lpr(dense, between_convolutions=True), x, target)


METHODS = {"dmbp": jaxattr.dmbp, "lpr": jaxattr.lpr}


@pytest.mark.parametrize("method", METHODS)
def test_errors(method):
    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    linear = lambda x: x.mean((1, 2))
    with pytest.raises(ValueError, match="no activation, so there is nothing to learn"):
        METHODS[method](linear)(x, target)
    with pytest.raises(ValueError, match="steps is 0"):
        METHODS[method](lambda x: jax.nn.relu(linear(x)), steps=0)(x, target)
    gated = lambda x: linear(x) * jnp.flip(linear(x), -1)
    with pytest.raises(jaxattr.UnsupportedOperation, match="product"):
        METHODS[method](gated)(x, target)


@pytest.mark.parametrize("method", mostly_slow(METHODS, [*METHODS][:1]))
def test_progress_is_told_and_changes_nothing(method):
    net, params, x, target = load("tiny")
    f, told = plain(net, params), []
    watched = jax.jit(METHODS[method](f, steps=3, progress=told.append))(x, target)
    jax.effects_barrier()
    assert sorted(told) == [1, 2, 3]
    np.testing.assert_array_equal(watched, jax.jit(METHODS[method](f, steps=3))(x, target))


LEARNED = peer("learned")


@pytest.mark.parametrize("kind", mostly_slow(["image", "literal"], ["literal"]))
@pytest.mark.parametrize("name", mostly_slow(["vgg", "resnet"], ["vgg"]))
def test_dmbp_against_double_backprop_in_torch(name, kind):
    """25 steps: the loss curve and both parts."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        options = {"steps": 25, "bias": kind == "literal", "init": 0.0}
        decompose = jaxattr.dmbp_details(plain(net, params), **options)
        found = jax.jit(decompose)(x, target)
        for field in ("losses", "positive", "negative"):
            theirs = LEARNED[f"dmbp.{name}.{kind}.{field}"]
            assert relative_error(getattr(found, field), theirs) < 1e-6, field
        whole = jax.jit(jaxattr.input_x_gradient(plain(net, params)))(x, target)
        assert relative_error(found.attribution + found.nuisance, whole) < 1e-12


LPR_OPTIONS = {
    "baseline": {},
    "gate": {"baseline": None, "gate": True},
    "free": {"baseline": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LPR_OPTIONS)
@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_lpr_against_double_backprop_in_torch(name, kind):
    """10 steps: the loss curve and the map."""
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        fit = jaxattr.lpr_details(plain(net, params), steps=10, **LPR_OPTIONS[kind])
        found = jax.jit(fit)(x, target)
        for field in ("losses", "attribution"):
            theirs = LEARNED[f"lpr.{name}.{kind}.{field}"]
            assert relative_error(getattr(found, field), theirs) < 1e-6, field
