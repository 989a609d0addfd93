"""One function, written in several ways, gets one map from every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn
from peers import relative_error
from speed import mostly_slow
from test_laws import METHODS, key_of

import jaxattr
from jaxattr import catalogue
from jaxattr.rules.rescale import rescaled
from jaxattr.tracing.taps import split

KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (2, 6, 6, 3))
TARGET = jnp.array([1, 0])
HEAD = jax.random.normal(KEYS[1], (3, 4))

MAXIMA = [
    lax.max,
    lambda a, b: jnp.where(a > b, a, b),
    lambda a, b: jnp.where(a <= b, b, a),
    lambda a, b: -jnp.stack([-a, -b]).min(0),
    # of two equal values these take one
    lambda a, b: jnp.sort(jnp.stack([a, b], -1))[..., -1],
    lambda a, b: lax.top_k(jnp.stack([a, b], -1), 1)[0][..., 0],
]


def maxout(*maxima):
    """Return a network of layers of maxout: four of ReLUs, which are often both 0, and two."""
    weights = 0.6 * jax.random.normal(KEYS[2], (len(maxima), 2, 3, 3))

    def f(x):
        h = x
        for i, (maximum, (v, w)) in enumerate(zip(maxima, weights, strict=True)):
            a, b = h @ v + 0.2, h @ w + 0.1
            h = maximum(nn.relu(a), nn.relu(b)) if i < 4 else maximum(a, b)
        return nn.relu(h @ weights[0, 0]).mean((1, 2)) @ HEAD

    return f


def assert_same_maps(method, *functions, rtol=1e-4):
    """Compare maps; all are compiled at once."""
    key, attributes = key_of(method), [METHODS[method](f) for f in functions]
    first, *others = jax.jit(lambda x: [a(x, TARGET, key=key) for a in attributes])(X)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=rtol, atol=rtol * abs(first).max())


@pytest.mark.parametrize("method", mostly_slow(METHODS, ["lrp"]))
def test_every_spelling_of_a_maximum(method):
    assert_same_maps(
        method,
        maxout(*[lambda a, b: jnp.stack([a, b]).max(0)] * len(MAXIMA)),
        maxout(*MAXIMA),
    )


SELECTIONS = {
    "sort": lambda x: jnp.sort(x, 1) @ jnp.arange(5.0),
    "top_k": lambda x: lax.top_k(x, 3)[0] @ jnp.array([3.0, -1.0, 2.0]),
    "minimum": lambda x: jnp.minimum(x, x[:, ::-1]).sum(1),
    "cummax": lambda x: lax.cummax(x, 1) @ jnp.arange(5.0),
    "smallest of a window": lambda x: lax.reduce_window(
        x, jnp.inf, lax.min, (1, 2), (1, 1), "VALID"
    ).sum(1),
}


@pytest.mark.parametrize("name", mostly_slow(SELECTIONS, ["sort", "cummax"]))
def test_multipliers_of_selections_account_for_the_whole_change(name):
    f = SELECTIONS[name]
    x, start = jax.random.normal(KEYS[3], (2, 6, 5))
    (m,) = jax.vjp(rescaled(f, start), x)[1](jnp.ones(6))
    np.testing.assert_allclose((m * (x - start)).sum(1), f(x) - f(start), rtol=1e-5, atol=1e-5)
    frozen = jaxattr.freeze(f, x)
    assert relative_error(frozen.logits(x), f(x)) < 1e-6
    assert relative_error(frozen.logits(2 * x - start), 2 * f(x) - frozen.logits(start)) < 1e-5


@pytest.mark.parametrize("maximum", [*MAXIMA[:3], lambda a, b: jnp.stack([a, b]).max(0)])
def test_a_maxout_may_be_the_last_feature_layer(maximum):
    value = lambda x: maximum(x @ HEAD, x @ HEAD[::-1])
    np.testing.assert_array_equal(split(lambda x: value(x).mean((1, 2)), X).before(X), value(X))


def filtered(h):
    """Mix tokens by a filter over frequencies, as GFNet does."""
    w = jax.random.normal(KEYS[3], (2, 6, 4, 3))
    return jnp.fft.irfft2(jnp.fft.rfft2(h, axes=(1, 2)) * lax.complex(*w), (6, 6), (1, 2))


def mixed(h):
    """Mix tokens and channels by a Fourier transform, as FNet does."""
    tokens = h.reshape(len(h), 36, 3)
    return jnp.fft.fft(jnp.fft.fft(tokens), axis=1).real.reshape(h.shape)


def dense(mix):
    """Return the same linear map as a dense layer."""

    def apply(h):
        weights = jax.jacobian(lambda h: mix(h[None])[0])(jnp.zeros((6, 6, 3)))
        return (h.reshape(len(h), 108) @ weights.reshape(108, 108).T).reshape(h.shape)

    return apply


def mixer(*mixes):
    def f(x):
        h = nn.relu(x @ HEAD[:, :3] + 0.1)
        for mix in mixes:
            h += 0.1 * nn.relu(mix(h) @ HEAD[:, 1:] + 0.2)
        return h.mean((1, 2)) @ HEAD

    return f


@pytest.mark.parametrize(
    "method",
    mostly_slow(
        ["guided_backprop", "deeplift", "lrp", "fullgrad", "tr_gbp", "dmbp", "lpr"], ["lrp"]
    ),
)
def test_a_fourier_transform_is_the_dense_layer_that_it_equals(method):
    """Exact by its own derivative, and by LRP's epsilon rule."""
    assert_same_maps(method, mixer(dense(filtered), dense(mixed)), mixer(filtered, mixed))


@pytest.mark.parametrize("method", mostly_slow(["rap", "rsp", "excitation_backprop"], []))
def test_relevance_passes_a_fourier_transform(method):
    a = jax.jit(METHODS[method](mixer(filtered, mixed)))(X, TARGET)
    assert np.isfinite(a).all()
    assert np.abs(a).max() > 0


def test_a_magnitude_of_frequencies_is_refused():
    f = lambda x: abs(jnp.fft.fft(x.reshape(2, 108)))
    with pytest.raises(jaxattr.UnsupportedOperation, match="`abs`"):
        jaxattr.deeplift(f)(X, TARGET)


BLOCKS = 0.5 * jax.random.normal(KEYS[3], (5, 3, 3))


@jax.named_scope("block")
def block(h, w):
    return nn.relu(h + nn.relu(h @ w + 0.1) @ w - 0.1)


def written_out(x):
    for w in BLOCKS:
        x = block(x, w)
    return x.mean((1, 2)) @ HEAD


def looped(x):
    """The same by a `switch`, a `fori_loop` and a `scan`."""
    h = lax.switch(jnp.array(1), [lambda h: h, lambda h: block(h, BLOCKS[0])], x)
    h = lax.fori_loop(1, 3, lambda i, h: block(h, BLOCKS[i]), h)
    h, _ = lax.scan(lambda h, w: (block(h, w), None), h, BLOCKS[3:])
    return h.mean((1, 2)) @ HEAD


UNREAD = {"noise", "paths", "perturbations"}  # what they ask of a function others ask too
READING = [name for name, m in catalogue.METHODS.items() if m.facts.family not in UNREAD]


@pytest.mark.parametrize("method", mostly_slow(READING, ["grad_cam", "dmbp"]))
def test_a_scan_over_layers_is_the_network_written_out(method):
    assert_same_maps(method, written_out, looped)


def test_a_layer_in_a_loop_is_that_of_the_last_turn():
    layers = [split(f, X, layer="block") for f in (written_out, looped)]
    values = [layer.before(X) for layer in layers]
    np.testing.assert_allclose(*values, rtol=1e-6)
    np.testing.assert_allclose(layers[1].after(values[0], X), written_out(X), rtol=1e-5)


def test_a_branch_chosen_by_the_image_is_frozen_as_it_was_taken():
    f = lambda x: lax.cond(x.sum() > 0, lambda x: nn.relu(x + 1), lambda x: 3 * x, x)
    frozen = jaxattr.freeze(f, jnp.array([2.0, -3.0]))
    np.testing.assert_array_equal(frozen.logits(jnp.array([5.0, 1.0])), [15, 3])
    with pytest.raises(jaxattr.UnsupportedOperation, match="`select_n`"):
        jax.vjp(rescaled(f, jnp.zeros(2)), jnp.ones(2))[1](jnp.ones(2))


@pytest.mark.parametrize("guard", [jnp.nan_to_num, lambda a: jnp.where(jnp.isnan(a), 0, a)])
@pytest.mark.parametrize("method", ["dmbp", "lpr"])
def test_a_guard_against_nan_is_no_activation(guard, method):
    """Its condition has no derivative, also where the activation is given a mask."""
    net = lambda act: lambda x: act(x @ HEAD[:, :3] + 0.1).mean((1, 2)) @ HEAD
    assert_same_maps(method, net(nn.relu), net(lambda z: guard(nn.relu(z))))


MIRRORED = [
    (lambda z: jnp.minimum(z, 0), lambda z: -nn.relu(-z)),
    (nn.sigmoid, lambda z: 1 - nn.sigmoid(-z)),
    (nn.log_sigmoid, lambda z: -nn.softplus(-z)),
]


@pytest.mark.parametrize("pair", MIRRORED, ids=["relu", "sigmoid", "log_sigmoid"])
@pytest.mark.parametrize("method", ["deeplift", "dmbp"])
def test_mirrored_activations_have_the_same_changes(method, pair):
    assert_same_maps(method, *(lambda x, act=a: act(x @ HEAD).mean((1, 2)) for a in pair))


@pytest.mark.parametrize("pair", MIRRORED[:2], ids=["relu", "sigmoid"])
def test_mirrored_activations_are_other_units_to_a_rule_of_signs(pair):
    """Guided backpropagation keeps the positive gradient of what is written as the activation."""
    w = jnp.array([[2.0], [-1.0]])
    f, g = (lambda x, act=a: act(x.reshape(1, 2)) @ w for a in pair)
    x, target = jnp.full((1, 1, 2, 1), -1.0), jnp.array([0])
    of_f, of_g = (jaxattr.guided_backprop(h)(x, target).ravel() for h in (f, g))
    assert (of_f > 0).tolist() == [True, False]
    assert (of_g < 0).tolist() == [False, True]


@pytest.mark.parametrize(
    "method", mostly_slow(["guided_backprop", "lrp", "fullgrad"], ["guided_backprop"])
)
def test_a_layer_in_a_shard_map_is_the_layer(method):
    """With and without `jit`, in which JAX itself differs."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("images",))
    part = jax.sharding.PartitionSpec("images")
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(3, 3, c, 4)).astype(np.float32) for c in (3, 4))
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=layout
    )
    layer = lambda y: jax.nn.relu(convolve(y, second) + 0.3)
    spread = jax.shard_map(layer, mesh=mesh, in_specs=part, out_specs=part)
    net = lambda layer: lambda x: layer(jax.nn.relu(convolve(x, first))).mean((1, 2))
    explain, target = getattr(jaxattr, method), np.array([0, 3])
    expected = jax.jit(explain(net(layer)))(x, target)
    for way in (lambda f: f, jax.jit):
        np.testing.assert_allclose(way(explain(net(spread)))(x, target), expected, atol=1e-6)
