"""What axes are, and which layer is the last one with an image in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from speed import mostly_slow

import jaxattr
from jaxattr.programs import dataflow, interpret
from jaxattr.structures.roles import Role, roles
from jaxattr.tracing.sites import should_inline
from jaxattr.tracing.taps import split

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 3, 8)) / 3, jnp.float32)
POINTWISE = jnp.asarray(RNG.normal(size=(8, 8)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(4, 6, 7, 3)), jnp.float32)
TARGET = jnp.array([0, 1, 2, 3])


def conv(x, kernel=KERNEL, layout="NHWC"):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=(layout, "HWIO", layout)
    )


@jax.named_scope("features")
def features(x):
    return jax.nn.relu(conv(x))


def attention_pool(a):
    logits = (a @ POINTWISE[:, :1]).reshape(len(a), -1)
    return (jax.nn.softmax(logits)[:, :, None] * a.reshape(len(a), -1, 8)).sum(1)


def standard_deviation(a):
    return jnp.sqrt(((a - a.mean((1, 2), keepdims=True)) ** 2).mean((1, 2)) + 1e-5)


HEADS = {
    "mean": lambda a: a.mean((1, 2)),
    "max": lambda a: a.max((1, 2)),
    "max-pool, mean": lambda a: lax.reduce_window(
        a, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    ).mean((1, 2)),
    "GeM": lambda a: ((a + 1e-6) ** 3).mean((1, 2)) ** (1 / 3),
    "mean square": lambda a: (a * a).mean((1, 2)),
    "L2-normalized": lambda a: (a * lax.rsqrt((a**2).sum(-1, keepdims=True) + 1e-6)).mean((1, 2)),
    "logsumexp": lambda a: jax.nn.logsumexp(a, (1, 2)),
    "standard deviation": standard_deviation,
    "attention": attention_pool,
    "scale and shift": lambda a: (a * jnp.arange(1.0, 9.0) + 1).mean((1, 2)),
    "resized": lambda a: jax.image.resize(a, (len(a), 8, 9, 8), "bilinear").mean((1, 2)),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_default_layer_is_before_the_pooling_head(head):
    """Whatever the head makes of the features, it is they that are taken."""
    f = lambda x: HEADS[head](features(x)) @ HEAD
    before = jax.jit(split(f, X).before)
    np.testing.assert_allclose(before(X), features(X), rtol=1e-6)
    default, named = (
        jax.jit(jaxattr.grad_cam(f, layer=layer))(X, TARGET) for layer in (None, "features")
    )
    np.testing.assert_array_equal(default, named)


@pytest.mark.parametrize(
    "method",
    mostly_slow(["grad_cam", "grad_cam_plus_plus", "score_cam", "rsp"], ["grad_cam", "rsp"]),
)
def test_the_same_function_vmapped(method):
    """Inside a vmap values have an axis more; the layer and the map stay."""
    f = lambda x: features(x).mean((1, 2)) @ HEAD
    g = jax.vmap(lambda image: f(image[None])[0])
    maps = [jax.jit(getattr(jaxattr, method)(h))(X, TARGET) for h in (f, g)]
    np.testing.assert_allclose(maps[1], maps[0], rtol=2e-5, atol=1e-6)
    a = jax.jit(getattr(jaxattr, method)(g, layer="features"))(X, TARGET)
    np.testing.assert_allclose(a, maps[0], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 1), (1, 12), (3, 3)])
def test_images_of_one_column(size):
    x = jnp.asarray(RNG.normal(size=(2, *size, 3)), jnp.float32)
    f = lambda x: features(x).mean((1, 2)) @ HEAD
    for g in (f, jax.vmap(lambda image: f(image[None])[0])):
        np.testing.assert_allclose(split(g, x).channels_last(split(g, x).before(x)), features(x))


def test_channels_first_and_residual_sums():
    def f(x):
        a = jax.nn.relu(conv(x.transpose(0, 3, 1, 2), layout="NCHW"))
        with jax.named_scope("block"):
            a = a + jnp.einsum("bchw,cd->bdhw", a, POINTWISE)
        return a.mean((2, 3)) @ HEAD

    halves = split(f, X)
    assert halves.roles == (Role.BATCH, Role.CHANNEL, Role.ROW, Role.COLUMN)
    np.testing.assert_array_equal(halves.before(X), split(f, X, layer="block").before(X))


def test_tokens_and_back():
    """Rows and columns in one axis are tokens, and rows and columns again when they part."""

    def f(x):
        tokens = features(x).reshape(4, 42, 8)
        return tokens @ POINTWISE, (tokens @ POINTWISE).reshape(4, 6, 7, 8)

    program, _ = interpret.read(f, X, inline=should_inline)
    found = roles(dataflow.flow(program, program.inputs))
    tokens, image = (found[v] for v in program.outputs)
    assert tokens == (Role.BATCH, Role.TOKEN, Role.CHANNEL)
    assert image == (Role.BATCH, Role.ROW, Role.COLUMN, Role.CHANNEL)


def test_a_long_chain_without_a_layer():
    """However long a function is, it is followed; and the error is the one that it should be."""

    def f(x):
        for _ in range(600):
            x = jnp.sin(x) + 1
        return x.sum((1, 2))

    with pytest.raises(ValueError, match="has no layer of shape"):
        split(lambda x: f(x.reshape(4, 14, 9)), X)
    assert split(f, X).before(X).shape == X.shape
