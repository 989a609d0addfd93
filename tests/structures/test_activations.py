"""An activation is found however it is spelled, and nothing else is taken for one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax, nn
from nets import RELU6S, RELUS
from speed import mostly_slow

import jaxattr
from jaxattr.rules import gates
from jaxattr.tracing.local import Local, plain

KINKS = jnp.array([-7.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 7.0])

MORE_RELUS = {
    "where(z <= 0, 0, z)": lambda z: jnp.where(z <= 0, 0, z),
    "where(z >= 0, z, 0)": lambda z: jnp.where(z >= 0, z, 0),
    "(z + abs(z)) / 2": lambda z: (z + jnp.abs(z)) / 2,
    "z * heaviside(z)": lambda z: z * jnp.heaviside(z, 0),
    "leaky_relu(z, 0)": lambda z: nn.leaky_relu(z, 0.0),
    "lax.clamp": lambda z: lax.clamp(0.0, z, jnp.inf),
    "remat": jax.checkpoint(nn.relu),
    "scan": lambda z: lax.scan(lambda c, _: (nn.relu(c), None), z, length=2)[0],
    "scan over rows": lambda z: lax.map(nn.relu, z),
    "cond": lambda z: lax.cond(z.sum() < 1e9, nn.relu, jnp.negative, z),
    "custom_vjp": gates.gate(lambda g, z, slope: g)(
        Local(None, nn.relu, None, None, None, None, 1, ())  # a ReLU with a derivative of its own
    ),
    "vmap": lambda z: jax.vmap(nn.relu)(z),
}
ALL_RELUS = RELUS | MORE_RELUS

SMOOTH = [nn.silu, nn.gelu, nn.softplus, nn.tanh, nn.sigmoid, nn.elu, nn.selu, nn.celu, nn.mish]
SMOOTH += [nn.soft_sign, nn.squareplus, nn.log_sigmoid, jnp.sin]
BENT = [nn.leaky_relu, nn.hard_swish, nn.hard_sigmoid, nn.hard_tanh, nn.relu6, jnp.abs]


def activations(f, x=KINKS):
    return [s for s in jaxattr.sites(lambda x: f(2 * x).sum(), x) if s.kind == "activation"]


def gradient(f, rule, x):
    return jax.jit(jax.grad(jaxattr.with_rules(lambda x: f(x).sum(), {"activation": rule})))(x)


@pytest.mark.parametrize("relu", ALL_RELUS.values(), ids=ALL_RELUS)
def test_guided_gate(relu):
    """The gate is `1[z > 0]`, also at 0, where JAX's own derivative depends on the spelling."""
    w = np.where(np.arange(KINKS.size) % 3 == 0, -1, 2).astype("float32")
    f = jaxattr.with_rules(lambda x: (relu(x) * w).sum(), {"activation": gates.guided})
    expected = np.maximum(w, 0) * (KINKS > 0)
    np.testing.assert_array_equal(jax.jit(jax.grad(f))(KINKS), expected)
    if relu is nn.relu:
        np.testing.assert_array_equal(jax.grad(f)(KINKS), expected)


@pytest.mark.parametrize("relu6", RELU6S.values(), ids=RELU6S)
def test_relu6_gate(relu6):
    expected = (KINKS > 0) & (KINKS < 6)
    np.testing.assert_array_equal(gradient(relu6, gates.guided, KINKS), expected)
    assert len(activations(relu6)) == 1


@pytest.mark.parametrize(
    "leaky",
    [
        nn.leaky_relu,
        lambda z: jnp.where(z > 0, z, 0.01 * z),
        lambda z: jnp.maximum(z, 0.01 * z),
        lambda z: nn.relu(z) - 0.01 * nn.relu(-z),
        lambda z: nn.elu(z, 0.0) + jnp.minimum(0.01 * z, 0),
    ],
)
def test_leaky_gate_at_zero(leaky):
    expected = jnp.where(KINKS > 0, 1, 0.01)
    np.testing.assert_allclose(gradient(leaky, gates.guided, KINKS), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "f", mostly_slow(SMOOTH + BENT, (SMOOTH + BENT)[::3]), ids=lambda f: f.__name__
)
def test_slope_is_the_derivative(f):
    x = jnp.linspace(-4.1, 4.3, 50)  # no kink
    plain = gates.gate(lambda g, z, slope: g * slope())
    np.testing.assert_allclose(
        gradient(f, plain, x), jax.jit(jax.vmap(jax.grad(f)))(x), rtol=2e-6, atol=1e-6
    )
    assert len(activations(f)) == 1


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (nn.relu, "relu"),
        (nn.relu6, "relu6"),
        (nn.silu, "silu"),
        (nn.leaky_relu, "leaky_relu"),
        (lambda z: jnp.clip(z, 0, 6), "clip"),
        (lambda z: jnp.maximum(z, 0), "max"),
    ],
)
def test_names(f, name):
    assert [s.op for s in activations(f)] == [name]


def handmade_sigmoid(z):
    return 1 / (1 + jnp.exp(-z))


def batch_norm(z):
    return (z - 1.5) * 3 + 2


@pytest.mark.parametrize(
    ("f", "count"),
    [
        (handmade_sigmoid, 1),
        (lambda z: jnp.log(1 + jnp.exp(z)), 1),
        (lambda z: nn.relu(batch_norm(nn.relu(z))), 2),
        (lambda z: nn.relu(nn.relu(z) + z[::-1]), 2),
        (lambda z: z + nn.relu(z), 1),
        (lambda z: jnp.where(jnp.isnan(z), 0, z), 0),
        (lambda z: jnp.where(jnp.arange(10) > 3, z, 0), 0),
        (lambda z: z / jnp.maximum(jnp.linalg.norm(z), 1e-6), 0),
        (lambda z: nn.softmax(z), 0),
        (lambda z: nn.log_softmax(z), 0),
        (lambda z: nn.standardize(z), 0),
        (lambda z: z * nn.sigmoid(z.mean()), 1),
        (lambda z: lax.stop_gradient(nn.relu(z)) + z, 0),
    ],
)
def test_counts(f, count):
    assert len(activations(f)) == count


def test_a_value_seen_elsewhere_is_no_inside_of_an_activation():
    """`relu(z)` also feeds a sum, so `z + relu(z)` is a sum of two values, not one function."""

    def f(z):
        a = nn.relu(z)
        return z + a + a.sum()

    assert [s.op for s in activations(f)] == ["relu"]


@pytest.mark.parametrize("norm", [linen.LayerNorm(), linen.GroupNorm(2), linen.RMSNorm()])
def test_variance_clamp_is_no_relu(norm):
    """LayerNorm's `max(var, 0)` keeps its derivative; the ReLU behind it is found."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    variables = jax.jit(norm.init)(jax.random.key(1), x)
    f = lambda x: nn.relu(norm.apply(variables, x))
    assert [s.op for s in activations(f, x)] == ["relu"]
    keep = gates.gate(lambda g, z, slope: g * slope())
    expected = jax.jit(jax.grad(lambda x: (f(x) ** 2).sum()))(x)
    np.testing.assert_allclose(
        gradient(lambda x: f(x) ** 2, keep, x), expected, rtol=1e-5, atol=1e-6
    )


def test_attention_and_gates_are_products():
    """Squeeze-excite and attention are read; their sigmoids are found, their softmax is not one."""
    x = jax.random.normal(jax.random.key(0), (2, 5, 4))

    def f(x):
        scores = nn.softmax(jnp.einsum("bqd,bkd->bqk", x, x @ jnp.ones((4, 4))))
        mixed = jnp.einsum("bqk,bkd->bqd", scores, x)
        return (nn.gelu(mixed) * nn.sigmoid(mixed.mean(1, keepdims=True) @ jnp.eye(4))).sum()

    kinds = [s.kind for s in jaxattr.sites(f, x)]
    assert kinds.count("activation") == 2
    assert kinds.count("product") == 4
    assert "unknown" not in kinds


def test_parametric_slope_gets_its_gradient():
    """PReLU: the rule changes the gradient of the input, not that of the parameter."""
    x = jnp.array([-2.0, -1.0, 3.0])

    def loss(slope, rule):
        f = lambda x: (jnp.where(x > 0, x, slope * x) * jnp.array([1.0, -1.0, -1.0])).sum()
        return jaxattr.with_rules(f, {"activation": rule})

    back = jax.grad(lambda x: loss(0.25, gates.guided)(x))(x)
    np.testing.assert_array_equal(back, [0.25, 0, 0])
    slope = jax.jit(jax.grad(lambda s: loss(s, gates.guided)(x)))(0.25)
    assert slope == -2.0 + 1.0


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.cumprod(x).sum(),
        lambda x: x[jnp.argmax(x)],
        lambda x: x[jnp.argsort(x)].sum(),
    ],
    ids=["cumprod", "argmax", "argsort"],
)
def test_the_unknown_is_refused(f):
    both = lambda x: nn.relu(f(x))
    with pytest.raises(jaxattr.UnsupportedOperation, match="depends on the image"):
        jaxattr.with_rules(both, {"activation": gates.guided})(KINKS)
    np.testing.assert_allclose(jax.jit(jaxattr.lowered(both))(KINKS), both(KINKS))


def test_the_unknown_can_be_passed_over():
    """By a rule that keeps an operation's own derivative, of several outputs too."""
    f = lambda x: nn.relu(jax.lax.sort((x, 2 * x))[1] - 1).sum()
    ruled = jaxattr.with_rules(f, {"activation": gates.guided, "unknown": plain})
    np.testing.assert_array_equal(jax.grad(ruled)(KINKS), 2.0 * (KINKS > 0.5))


def test_refusal_names_place_and_line():
    @jax.named_scope("head")
    def f(x):
        return nn.relu(jnp.cumprod(x))  # this line

    line = f.__wrapped__.__code__.co_firstlineno + 2
    with pytest.raises(jaxattr.UnsupportedOperation) as error:
        jaxattr.with_rules(f, {"activation": gates.guided})(KINKS)
    message = str(error.value)
    assert "`cumprod`" in message
    assert "in head" in message
    assert f"{__file__}:{line} (" in message


def test_nothing_to_replace_is_an_error():
    with pytest.raises(ValueError, match="no activation"):
        jaxattr.with_rules(jnp.sum, {"activation": gates.guided}, needs=["activation"])(KINKS)


POWERS = {
    "z**2": lambda z: z**2,
    "z**3": lambda z: z**3,
    "z * z": lambda z: z * z,
    "exp": jnp.exp,
    "relu(z)**2": lambda z: nn.relu(z) ** 2,
    "log1p(relu(z))": lambda z: jnp.log1p(nn.relu(z)),
}
NORMS = {
    "softmax": nn.softmax,
    "standardize": nn.standardize,
    "layer norm": lambda z: (
        (z - z.mean(-1, keepdims=True)) * lax.rsqrt(z.var(-1, keepdims=True) + 1e-5)
    ),
    "fast variance": lambda z: (
        (z - z.mean(-1, keepdims=True))
        / jnp.sqrt(
            jnp.maximum((z * z).mean(-1, keepdims=True) - jnp.square(z.mean(-1, keepdims=True)), 0)
            + 1e-5
        )
    ),
    "rms": lambda z: z * lax.rsqrt((z**2).mean(-1, keepdims=True) + 1e-6),
    "l2": lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True),
}


def _net(function):
    first, last = jax.random.split(jax.random.key(0))
    w, v = jax.random.normal(first, (3, 8)), jax.random.normal(last, (8, 5))
    return lambda x: nn.relu(function(x @ w)).mean((1, 2)) @ v


@pytest.mark.parametrize("power", mostly_slow(POWERS, [*POWERS][::3]))
def test_a_power_before_a_layer_is_an_activation(power):
    """Guided backpropagation gates it, and relevance passes it."""
    f, x = _net(POWERS[power]), jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    kinds = [s.kind.value for s in jaxattr.sites(f, x)]
    assert "statistic" not in kinds
    assert kinds.count("activation") == 2 + power.startswith(("relu", "log1p"))
    target = jnp.array([0, 1])
    g = jaxattr.with_rules(f, {"activation": gates.guided})
    by_hand = jax.jit(jax.vmap(lambda x, t: jax.grad(lambda x: g(x[None])[0, t])(x)))(x, target)
    guided, plain, relevance = (
        jax.jit(method(f))(x, target)
        for method in (jaxattr.guided_backprop, jaxattr.saliency, jaxattr.lrp)
    )
    np.testing.assert_allclose(guided, by_hand, rtol=1e-5)
    assert np.abs(by_hand - plain).max() > 1e-3
    assert jnp.isfinite(relevance).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_power_in_a_norm_is_a_statistic(norm):
    sites = jaxattr.sites(_net(NORMS[norm]), jnp.ones((2, 4, 4, 3)))
    powers = [s for s in sites if s.kind in ("statistic", "activation")]
    assert [s.kind.value for s in powers[:-1]] == ["statistic"] * (len(powers) - 1)


@pytest.mark.parametrize("method", ["guided_backprop", "deeplift", "fullgrad", "tr_gbp"])
def test_a_closed_gate_lets_no_nan_pass(method):
    """Behind a dead unit the root has no derivative; JAX's own selects, and so do the rules."""
    w = jax.random.normal(jax.random.key(0), (3, 8))
    f = lambda x: jnp.sqrt((nn.relu(x @ w - 4) ** 2).sum(-1)).reshape(len(x), -1)
    x, target = jax.random.normal(jax.random.key(1), (2, 4, 4, 3)), jnp.array([0, 1])
    assert (f(x) == 0).any()
    assert np.isfinite(jax.jit(getattr(jaxattr, method)(f))(x, target)).all()


def test_a_comparison_inside_an_activation_that_others_see():
    """As in `jnp.interp`: what it compares is made for them too."""

    def f(x):
        size = abs(x)
        small = size <= 1
        gentle = jnp.where(small, 0.5, size)  # an activation of x
        return jnp.where(small, 2 * x, x / gentle).sum()

    x = jnp.array([-2.0, 0.5, 3.0])
    g = jaxattr.with_rules(f, {"activation": gates.gradient})
    np.testing.assert_allclose(jax.jit(g)(x), jax.jit(f)(x), rtol=1e-6)
    ours, theirs = (jax.jit(jax.grad(f))(x) for f in (g, f))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    table = jnp.linspace(-4, 4, 9)
    h = lambda x: jnp.interp(x, table, nn.gelu(table)).sum()
    np.testing.assert_allclose(
        jax.jit(jax.grad(jaxattr.with_rules(h, {"activation": gates.gradient})))(x),
        jax.jit(jax.grad(h))(x),
        rtol=1e-6,
    )


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap])
def test_an_activation_that_closes_over_an_array(wrap):
    """JAX knows no derivative to what a `custom_vjp` closes over, and nobody asks for it."""
    scale = jnp.array([1.0, 2.0, -3.0])

    @jax.custom_vjp
    def scaled(x):
        return jnp.maximum(x, 0) * scale

    scaled.defvjp(lambda x: (scaled(x), x), lambda x, g: (g * (x > 0) * scale,))
    x = jnp.array([[-2.0, 0.5, 3.0]])
    f = wrap(jaxattr.with_rules(lambda x: scaled(x).sum(), {"activation": gates.guided}))
    np.testing.assert_allclose(jax.grad(lambda x: f(x).sum())(x), [[0, 2, -3]])
