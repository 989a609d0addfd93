"""What lies between layers: the same derivatives, less memory."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn
from speed import mostly_slow

import jaxattr
from jaxattr.rules import gates

W = jax.random.normal(jax.random.key(0), (3, 3, 16, 16)) / 12
X = jax.random.normal(jax.random.key(1), (4, 32, 32, 16))
ONE = jnp.ones((1, 1, 1, 1))

ACTIVATIONS = {
    "relu": nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "clip": lambda x: jnp.clip(x, 0, 6),
    "relu6": nn.relu6,
    "clamp": lambda x: lax.clamp(0.0, x, 6.0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "leaky": nn.leaky_relu,
    "twice": lambda x: jnp.minimum(jnp.maximum(jnp.maximum(x, 0), -1), 6),
    "folded": lambda x: jnp.maximum(x, jnp.minimum(2 * x, 3)),
    "hard": nn.hard_swish,
    "silu": nn.silu,
}


def convolved(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("name", mostly_slow(ACTIVATIONS, ["relu6", "where", "leaky", "silu"]))
def test_own_derivative(name):
    """Without rules the derivatives are those of JAX, also where the function has a kink."""
    activation = ACTIVATIONS[name]
    points = jnp.array([-7.0, -3, -1, -0.0, 0.0, 0.5, 1.5, 3, 6, 7]).reshape(1, 2, 5, 1)
    f = lambda x: (convolved(activation(convolved(x, ONE)), ONE) * (1 + x)).sum()
    g = jaxattr.lowered(f)
    np.testing.assert_array_equal(jax.jit(jax.grad(g))(points), jax.jit(jax.grad(f))(points))
    twice = jax.jit(
        lambda f, x: [
            jax.grad(lambda x: (jax.grad(f)(x) ** 2).sum())(x),
            jax.jvp(f, (x,), (1 + x,))[1],
            jax.jvp(jax.grad(f), (x,), (1 + x,))[1],
        ],
        static_argnums=0,
    )
    for a, b in zip(twice(g, points), twice(f, points), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_a_learned_bound():
    """A bound that is a value of the program has its own gradient."""
    points = jnp.array([-2.0, 0, 1, 5]).reshape(1, 2, 2, 1)
    f = lambda bound, x: convolved(jnp.maximum(convolved(x, ONE), bound), ONE).sum()
    g = lambda bound, x: jaxattr.lowered(lambda x: f(bound, x))(x)
    for argnum in (0, 1):
        np.testing.assert_array_equal(*(jax.grad(h, argnum)(0.5, points) for h in (f, g)))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("activation", "rule"),
    mostly_slow(product(["relu", "relu6", "clip"], [None, "guided"]), [("relu6", "guided")]),
)
def test_gates_are_bytes(activation, rule):
    """The backward pass of a residual network keeps a byte for a gate."""
    act, rules = ACTIVATIONS[activation], {"activation": gates.guided} if rule else {}

    def f(x):
        for _ in range(8):
            x = act(x + convolved(act(convolved(x, W)), W))
        return x.sum()

    memory = lambda f: jax.jit(jax.grad(f)).lower(X).compile().memory_analysis().temp_size_in_bytes
    assert memory(jaxattr.with_rules(f, rules)) < 0.6 * memory(f)


@pytest.mark.usefixtures("optimized")
def test_sums_are_made_once():
    """The sum behind a block is not made again from all that came before it."""

    def f(x):
        for _ in range(8):
            x = nn.relu(x + convolved(x, W))
        return x

    memory = lambda f: jax.jit(f).lower(X).compile().memory_analysis().temp_size_in_bytes
    assert memory(jaxattr.lowered(f)) < 0.6 * memory(f)
    np.testing.assert_allclose(jaxattr.lowered(f)(X), f(X), rtol=1e-5, atol=1e-5)


def test_not_finite_stays():
    """What is not finite is kept as it is."""
    x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0]).reshape(1, 2, 2, 1)
    f = lambda x: (h := nn.relu(x)) + 0 * convolved(jnp.zeros_like(h) * (h == 5), ONE)
    g = lambda x: (h := nn.relu(x)) + convolved(h, ONE)
    for function in (f, g):
        np.testing.assert_array_equal(jaxattr.lowered(function)(x), function(x))


def test_an_identity_keeps_its_own_derivative():
    """A call that does nothing but turn the gradient round is not ours to open."""
    reverse = jax.custom_vjp(lambda x: x)
    reverse.defvjp(lambda x: (x, None), lambda _, g: (-g,))
    nested = jax.custom_vjp(lambda x: jax.jit(lambda a: a)(x))
    nested.defvjp(lambda x: (x, None), lambda _, g: (-g,))
    for turn in (reverse, nested):
        f = lambda x, turn=turn: (turn(h := convolved(x, W)) * convolved(h, W)).sum()
        for g in (jaxattr.lowered(f), jaxattr.with_rules(jaxattr.lowered(f), {})):
            np.testing.assert_allclose(jax.grad(g)(X), jax.grad(f)(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    mostly_slow(
        ["saliency", "guided_backprop", "lrp", "deeplift", "fullgrad"], ["saliency", "lrp"]
    ),
)
def test_a_second_eager_call_compiles_nothing(method):
    """Outside of `jit` a map costs what an eager gradient does, and leaves no program behind."""
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 3, 8))

    def f(x):
        a = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        window = (1, 2, 2, 1)
        return lax.reduce_window(nn.relu(a), -jnp.inf, lax.max, window, window, "SAME").mean((1, 2))

    x, target = jnp.ones((2, 6, 6, 3)), jnp.array([0, 1])
    explain = getattr(jaxattr, method)(f)
    explain(x, target)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event)
    )
    explain(x, target)
    assert not [event for event in compiled if "backend_compile" in event]
