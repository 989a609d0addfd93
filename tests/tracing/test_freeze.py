"""The frozen network equals the network where it was frozen, and is affine everywhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import FRAMEWORKS
from jax import lax, nn
from modern import MODERN, images
from nets import NETS, RELUS, load, plain
from peers import relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.tracing.freeze import freeze

KEY = jax.random.key(0)


def turns(x):
    return lax.while_loop(lambda c: c[1] < 3, lambda c: (nn.relu(c[0]), c[1] + 1), (x, 0))[0]


def masks_for(f, x, seed):
    rng = np.random.default_rng(seed)
    lines = jax.eval_shape(lambda x: freeze(f, x).lines, x)
    return [rng.uniform(size=line.slope.shape) for line in lines]


@pytest.mark.parametrize("name", mostly_slow(NETS, ["lite"]))
def test_equals_the_network_where_it_was_frozen(name):
    """Values and gradients, with and without masks of one."""
    with enable_x64(True):
        net, params, x, _ = load(name, "float64")
        f = plain(net, params)

        def at(v, x):
            frozen = freeze(f, x)
            ones = frozen.logits(v, [jnp.ones_like(line.slope) for line in frozen.lines])
            value = frozen.logits(v)
            return value.sum(), (value, ones)

        (_, values), ours = jax.jit(jax.value_and_grad(at, has_aux=True))(x, x)
        (_, own), theirs = jax.jit(jax.value_and_grad(lambda x: (f(x).sum(), f(x)), has_aux=True))(
            x
        )
        for value in values:
            assert relative_error(value, own) < 1e-14
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", mostly_slow(NETS, ["lite"]))
def test_affine_in_the_image_and_linear_in_each_mask(name):
    with enable_x64(True):
        net, params, x, _ = load(name, "float64")
        f, x = plain(net, params), np.asarray(x)
        u, v = np.random.default_rng(0).normal(size=(2, *x.shape))
        masks, other = masks_for(f, x, 0), masks_for(f, x, 1)

        @partial(jax.jit, static_argnames="bias")
        def logits(v, masks, bias=True):
            return freeze(f, x).logits(v, masks, bias=bias)

        whole = lambda v: np.asarray(logits(v, masks))
        linear = lambda v: np.asarray(logits(v, masks, bias=False))
        between = whole(0.3 * u + 0.7 * v)
        assert relative_error(between, 0.3 * whole(u) + 0.7 * whole(v)) < 1e-12
        assert relative_error(linear(2 * u - v), 2 * linear(u) - linear(v)) < 1e-12
        assert relative_error(linear(u), whole(u) - whole(0 * u)) < 1e-12
        for i in (0, len(masks) - 1):
            swap = lambda m, i=i: np.asarray(logits(u, [*masks[:i], m, *masks[i + 1 :]]))
            mixed = swap(0.25 * masks[i] + 0.75 * other[i])
            assert relative_error(mixed, 0.25 * swap(masks[i]) + 0.75 * swap(other[i])) < 1e-12


@pytest.mark.parametrize("framework", mostly_slow(FRAMEWORKS, ["nnx"]))
def test_every_framework(framework):
    net, params, x, _ = load("lite")
    f = FRAMEWORKS[framework](net, params)
    frozen = jax.jit(lambda x: ((frozen := freeze(f, x)).lines, frozen.logits(x), f(x)))
    lines, ours, theirs = frozen(x)
    assert len(lines) == 5
    assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_relus_have_no_offset(relu):
    frozen = freeze(lambda x: relu(2 * x), jnp.arange(-3.0, 4.0))
    assert frozen.lines[0].offset is None
    np.testing.assert_array_equal(frozen.lines[0].slope, jnp.arange(-3, 4) > 0)


@pytest.mark.parametrize(
    "act",
    [nn.relu6, nn.silu, nn.gelu, lambda z: jnp.maximum(z, 1), lambda z: jnp.where(z > 1, z, 0)],
)
def test_others_keep_theirs(act):
    x = jnp.linspace(-8.0, 8.0, 33)
    frozen = freeze(lambda x: act(2 * x), x)
    assert frozen.lines[0].offset is not None
    np.testing.assert_allclose(frozen.logits(x), act(2 * x), atol=1e-6)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
        lambda x: x.max((1, 2)),
        lambda x: x.max((1, 3)).sum(-1),
    ],
)
def test_pools_keep_their_selection(pool):
    """Of equal values the first is kept, as JAX's derivative of a window's maximum does."""
    rng = np.random.default_rng(0)
    x, v = np.round(rng.normal(size=(2, 2, 7, 6, 3)).astype("float32"))
    logits = jax.jit(lambda v: freeze(pool, x).logits(v))
    own, ones = np.asarray(pool(x)), np.asarray(logits(x * 0 + 1))
    np.testing.assert_array_equal(logits(x), own)
    np.testing.assert_allclose(logits(x + 3), own + 3 * ones)
    total = np.asarray(jax.jit(jax.grad(lambda v: logits(v).sum()))(v))
    assert total.sum() == own.size * ones.ravel()[0]


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x[:, :2] * x[:, 2:], "does not tell which is the factor"),
        (lambda x: nn.softmax(x), "statistic"),
        (turns, "stands in a while"),
    ],
)
def test_what_has_no_such_view_is_refused(f, message):
    with pytest.raises(jaxattr.UnsupportedOperation, match=message):
        freeze(f, jnp.ones((3, 4)))


@pytest.mark.parametrize("name", mostly_slow(MODERN, ["vit"]))
def test_factors_are_held_and_what_they_multiply_is_affine(name):
    """Gates, deviations and attention: value, superposition, masks, and the image's own part."""
    with enable_x64(True):
        f, x = MODERN[name](), images()
        u, v = images(2), images(3)

        @jax.jit
        def found(x, u, v):
            frozen = freeze(f, x)
            masks, other = masks_for(f, x, 0), masks_for(f, x, 1)
            whole = lambda x, masks=masks: frozen.logits(x, masks)
            mixed = [0.25 * masks[0] + 0.75 * other[0], *masks[1:]]
            swapped = 0.25 * whole(u) + 0.75 * whole(u, [other[0], *masks[1:]])
            linear = frozen.logits(u, masks, bias=False)
            return {
                "value": (frozen.logits(x), f(x)),
                "affine": (whole(0.3 * u + 0.7 * v), 0.3 * whole(u) + 0.7 * whole(v)),
                "linear": (linear, whole(u) - whole(jnp.zeros_like(u))),
                "masks": (whole(u, mixed), swapped),
            }

        for law, (ours, theirs) in found(x, u, v).items():
            assert relative_error(ours, theirs) < 1e-12, law


STOP = lax.stop_gradient
SPREAD = lambda a: a.mean(1, keepdims=True)


@pytest.mark.parametrize(
    ("f", "stopped"),
    [
        (lambda a, b: a * nn.sigmoid(b), lambda a, b: a * STOP(nn.sigmoid(b))),
        (
            lambda a, b: nn.hard_sigmoid(b) * nn.relu(a),
            lambda a, b: STOP(nn.hard_sigmoid(b)) * nn.relu(a),
        ),
        (
            lambda a, b: nn.tanh(a) / (1 + jnp.exp(-b)),
            lambda a, b: nn.tanh(a) * STOP(nn.sigmoid(b)),
        ),
        (lambda a, b: nn.silu(b) * a, lambda a, b: STOP(nn.silu(b)) * a),
        (lambda a, b: (1 - nn.sigmoid(b)) * a, lambda a, b: STOP(1 - nn.sigmoid(b)) * a),
        (lambda a, b: SPREAD(b) * a, lambda a, b: STOP(SPREAD(b)) * a),
        (lambda a, b: SPREAD(a) * nn.sigmoid(b), lambda a, b: SPREAD(a) * STOP(nn.sigmoid(b))),
        (lambda a, b: a * nn.softmax(b), lambda a, b: a * STOP(nn.softmax(b))),
        (
            lambda a, b: jnp.exp(b) * a / jnp.exp(b).sum(),
            lambda a, b: a * STOP(nn.softmax(b, (0, 1))),
        ),
        (lambda a, b: a / jnp.linalg.norm(a), lambda a, b: a / STOP(jnp.linalg.norm(a))),
        (
            lambda a, b: a / (2 + SPREAD(a * a)) ** 0.75,
            lambda a, b: a / STOP(2 + SPREAD(a * a)) ** 0.75,
        ),
        (lambda a, b: jnp.where(b > 0, a, 2 * b), lambda a, b: jnp.where(STOP(b) > 0, a, 2 * b)),
    ],
)
def test_the_factor_of_a_product_is_told_by_what_made_it(f, stopped):
    with enable_x64(True):
        x = jax.random.normal(KEY, (3, 8), "float64")
        weight = jax.random.normal(jax.random.key(1), (8, 8), "float64")
        of = lambda f: lambda x: f(*jnp.split(x @ weight, 2, -1))

        @jax.jit
        def found(x):
            frozen = freeze(of(f), x)
            held = jax.grad(lambda v: (frozen.logits(v) ** 2).sum())
            expected = jax.grad(lambda v: (of(stopped)(v) ** 2).sum())
            return frozen.logits(x), of(f)(x), held(x), expected(x)

        logits, wanted, gradient, expected = found(x)
        np.testing.assert_allclose(logits, wanted, rtol=1e-12)
        np.testing.assert_allclose(gradient, expected, rtol=1e-10)


def test_what_is_held_can_be_chosen():
    """By name where nothing tells the factor; the mean of a norm; the gate of an activation."""
    x = jax.random.normal(KEY, (3, 4))

    def bilinear(x):
        with jax.named_scope("attend"):
            factor = x[:, 2:] + 1
        return x[:, :2] * factor

    ours = freeze(bilinear, x, hold=("attend",)).logits(2 * x)
    np.testing.assert_allclose(ours, 2 * x[:, :2] * (x[:, 2:] + 1), rtol=1e-6)
    with pytest.raises(ValueError, match="'gates', which is no layer or scope"):
        freeze(bilinear, x, hold=("gates",))
    centered = freeze(nn.standardize, x, hold=("norm", "mean")).logits(x + 1) - nn.standardize(x)
    deviation = jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(centered, jnp.broadcast_to(1 / deviation, x.shape), rtol=1e-4)
    silu = freeze(nn.silu, x, hold=("activation",))
    np.testing.assert_allclose(silu.logits(2 * x), 2 * nn.silu(x), rtol=1e-5, atol=1e-7)


def test_straight_pieces_between_knots():
    """A network of interpolated `tanh`, affine around x; a kink at a knot stays."""
    w = np.array([[1.0, -0.5], [0.3, 2.0]])
    knots = np.arange(-6, 6.1, 0.5)
    straight = lambda z: np.interp(z, knots, np.tanh(knots))
    f = lambda x: jnp.tanh(jnp.tanh(x) @ w) + nn.relu6(x @ w)
    with enable_x64(True):
        x = jnp.array([[-1.3, 2.9]])
        at = lambda knot_spacing: jax.jit(
            lambda v: freeze(f, x, knot_spacing=knot_spacing).logits(v)
        )
        for v in (x, x + 0.01):  # no knot lies between them
            exact = straight(straight(v) @ w) + np.clip(v @ w, 0, 6)
            np.testing.assert_allclose(at(0.5)(v), exact, rtol=1e-12)
        errors = [np.abs(at(h)(x) - f(x)).max() for h in (0.1, 0.01)]
    assert errors[1] < 1e-4 < errors[0]
    with pytest.raises(ValueError, match="knot_spacing is 0; expected a positive"):
        freeze(f, x, knot_spacing=0)


def test_remat_is_opened():
    f = jax.checkpoint(lambda x: nn.relu(x @ jnp.eye(4)))
    x = jax.random.normal(KEY, (3, 4))
    np.testing.assert_allclose(freeze(f, x).logits(x), f(x))
