"""Methods of any number, at layers, of units and of several inputs."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import load, plain
from peers import peer, relative_error
from precision import enable_x64

import jaxattr
from jaxattr import scores

PEERS = peer("layers")
X, TARGET = jax.random.normal(jax.random.key(0), (2, 3, 4, 3)), jnp.array([0, 2])
W = jax.random.normal(jax.random.key(1), (3, 4))


def f(x):
    with jax.named_scope("hidden"):
        h = jax.nn.relu(x - 0.1)
    return jnp.tanh(h).mean((1, 2)) @ W


@pytest.mark.slow
def test_layers_and_units_against_captum():
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        g, layer, start = plain(net, params), {"layer": "relu3"}, {"baseline": 0.1}
        quick = partial(jaxattr.integrated_gradients, steps=20, chunk=20)
        methods = {
            "integrated_gradients": jaxattr.inside(quick, g, **layer, **start),
            "gradient_x_activation": jaxattr.inside(jaxattr.input_x_gradient, g, **layer),
            "internal": jaxattr.internal_influence(g, **layer, **start, steps=60, chunk=60),
            "conductance": jaxattr.conductance(g, **layer, **start, steps=60, chunk=60),
        }
        unit = jaxattr.saliency(jaxattr.channels(g, **layer, at=(2, 1)))

        @jax.jit
        def everything(x, target):
            found = {name: a(x, target) for name, a in methods.items()}
            return found | {"neuron_gradient": unit(x, jnp.full(2, 3))}

        found = everything(x[:2], target[:2])
    for name, ours in found.items():
        # Captum's nodes have nine digits; of a thousand intervals it takes the gradient where they
        # begin.
        assert relative_error(ours, PEERS[name]) < (2e-2 if name == "conductance" else 1e-8), name


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda: jaxattr.inside(jaxattr.deeplift, f, layer="hidden", baseline=0.3), 1e-5),
        (lambda: jaxattr.conductance(f, layer="hidden", baseline=0.3, chunk=50), 1e-3),
    ],
)
def test_a_layer_that_nothing_bypasses_takes_all(make, tolerance):
    total = jax.jit(make())(X, TARGET).sum((1, 2, 3))
    rows = np.arange(2)
    change = f(X)[rows, TARGET] - f(0 * X + 0.3)[rows, TARGET]
    np.testing.assert_allclose(total, change, rtol=tolerance)


def test_units_and_their_mean():
    def gradient(at):
        unit = jaxattr.channels(f, layer="hidden", at=at)
        return jaxattr.saliency(unit)(X, jnp.array([1, 1]))

    alive = np.asarray(X - 0.1 > 0)[..., 1]
    np.testing.assert_allclose(gradient(None)[..., 1], alive / 12, rtol=1e-6)
    one = np.zeros((2, 3, 4))
    one[:, 2, 3] = alive[:, 2, 3]
    np.testing.assert_allclose(gradient((2, 3))[..., 1], one, rtol=1e-6)


def test_several_inputs_share_what_is_attributed():
    g = lambda both: jnp.tanh(f(both[0]) + both[1] @ W)
    inputs, start = (X, X[:, 0, 0]), (0 * X + 0.2, X[:, 1, 1])
    explain = jaxattr.several_inputs(jaxattr.deeplift, g, baselines=start)
    maps = jax.jit(explain)(inputs, TARGET)
    assert [a.shape for a in maps] == [a.shape for a in inputs]
    total = sum(a.reshape(2, -1).sum(1) for a in maps)
    rows = np.arange(2)
    change = g(inputs)[rows, TARGET] - g(start)[rows, TARGET]
    np.testing.assert_allclose(total, change, rtol=1e-4)
    alone = jaxattr.several_inputs(jaxattr.saliency, lambda one: f(one["x"]))({"x": X}, TARGET)
    np.testing.assert_array_equal(alone["x"], jaxattr.saliency(f)(X, TARGET))
    with pytest.raises(ValueError, match=r"the inputs are float32\[2, 3, 4, 3\], int32\[2\]; exp"):
        explain((X, TARGET), TARGET)


def test_margins_and_log_odds_are_those_of_every_class():
    logits = jax.random.normal(jax.random.key(2), (3, 5)) * 4
    p = np.asarray(jax.nn.softmax(logits), float)
    np.testing.assert_allclose(scores.log_odds(logits), np.log(p / (1 - p)), rtol=1e-3)
    for k in range(5):
        expected = scores.margin(logits, jnp.full(3, k))
        np.testing.assert_allclose(scores.margins(logits)[:, k], expected, rtol=1e-6)
    for of_all in (scores.margins, scores.log_odds):
        with pytest.raises(ValueError, match="one logit has no other class"):
            of_all(logits[:, :1])


@pytest.mark.parametrize("of_all", [scores.margins, scores.log_odds])
def test_relevance_of_a_scalar_is_complete(of_all):
    g = jaxattr.scalar(f, of_all)
    total = jax.jit(jaxattr.deeplift(g, baseline=0.3))(X, TARGET).sum((1, 2, 3))
    rows = np.arange(2)
    change = g(X)[rows, TARGET] - g(0 * X + 0.3)[rows, TARGET]
    np.testing.assert_allclose(total, change, rtol=1e-4)


def test_pickled():
    made = [
        jaxattr.inside(jaxattr.saliency, f, layer="hidden"),
        jaxattr.several_inputs(jaxattr.saliency, f),
        jaxattr.expected(jaxattr.deeplift, f, references=0.3),
        jaxattr.ensemble([jaxattr.saliency(f)]),
    ]
    again = pickle.loads(pickle.dumps(made))
    each = jax.jit(lambda x, t: [a(x, t) for a in (*made, *again)])(X, TARGET)
    for ours, theirs in zip(each[:4], each[4:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_scalar():
    for read, message in [
        (lambda z: z.sum(), r"read returned shape \(\) for images of shape \(2, 3, 4, 3\)"),
        (lambda z: {"z": z}, "read returned a dict"),
    ]:
        with pytest.raises(ValueError, match=message):
            jaxattr.saliency(jaxattr.scalar(f, read))(X, TARGET)
    one = jaxattr.scalar(f, lambda z: z[:, 1])
    np.testing.assert_allclose(one(X)[:, 0], f(X)[:, 1])
