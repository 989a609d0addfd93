"""The frozen network equals the network where it was frozen, and is affine everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import FRAMEWORKS
from jax import lax, nn
from nets import NETS, RELUS, load, plain
from peers import relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.tracing.freeze import freeze

KEY = jax.random.key(0)


def masks_for(frozen, key=KEY):
    keys = jax.random.split(key, len(frozen.lines))
    return [
        jax.random.uniform(k, line.slope.shape, line.slope.dtype)
        for k, line in zip(keys, frozen.lines, strict=True)
    ]


@pytest.mark.parametrize("name", mostly_slow(NETS, ["lite"]))
def test_equals_the_network_where_it_was_frozen(name):
    """Values and gradients, with and without masks of one."""
    with enable_x64(True):
        net, params, x, _ = load(name, "float64")
        f = plain(net, params)
        frozen = jax.jit(lambda x: freeze(f, x).logits(x))(x)
        ones = jax.jit(
            lambda x: (z := freeze(f, x)).logits(x, [jnp.ones_like(a.slope) for a in z.lines])
        )
        assert relative_error(frozen, f(x)) < 1e-14
        assert relative_error(ones(x), f(x)) < 1e-14
        ours = jax.jit(jax.grad(lambda v, x: freeze(f, x).logits(v).sum()))(x, x)
        assert relative_error(ours, jax.grad(lambda x: f(x).sum())(x)) < 1e-12


@pytest.mark.parametrize("name", mostly_slow(NETS, ["lite"]))
def test_affine_in_the_image_and_linear_in_each_mask(name):
    with enable_x64(True):
        net, params, x, _ = load(name, "float64")
        frozen = freeze(plain(net, params), x)
        u, v = jax.random.normal(KEY, (2, *x.shape), x.dtype)
        masks = masks_for(frozen)
        whole = jax.jit(lambda x: frozen.logits(x, masks))
        linear = jax.jit(lambda x: frozen.logits(x, masks, bias=False))
        between = whole(0.3 * u + 0.7 * v)
        assert relative_error(between, 0.3 * whole(u) + 0.7 * whole(v)) < 1e-12
        assert relative_error(linear(2 * u - v), 2 * linear(u) - linear(v)) < 1e-12
        assert relative_error(linear(u), whole(u) - whole(jnp.zeros_like(u))) < 1e-12
        other = masks_for(frozen, jax.random.key(1))
        for i in (0, len(masks) - 1):
            swap = lambda m, i=i: frozen.logits(u, [*masks[:i], m, *masks[i + 1 :]])
            mixed = swap(0.25 * masks[i] + 0.75 * other[i])
            assert relative_error(mixed, 0.25 * swap(masks[i]) + 0.75 * swap(other[i])) < 1e-12


@pytest.mark.parametrize("framework", mostly_slow(FRAMEWORKS, ["nnx"]))
def test_every_framework(framework):
    net, params, x, _ = load("lite")
    f = FRAMEWORKS[framework](net, params)
    frozen = freeze(f, x)
    assert len(frozen.lines) == 5
    assert relative_error(frozen.logits(x), f(x)) < 1e-5


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
    x = jnp.round(jax.random.normal(KEY, (2, 7, 6, 3)))
    v = jax.random.normal(jax.random.key(1), x.shape)
    frozen = freeze(pool, x)
    np.testing.assert_array_equal(frozen.logits(x), pool(x))
    np.testing.assert_allclose(frozen.logits(x + 3), pool(x) + 3 * frozen.logits(x * 0 + 1))
    total = jax.grad(lambda v: frozen.logits(v).sum())(v)
    assert total.sum() == pool(x).size * frozen.logits(jnp.ones_like(x)).ravel()[0]


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x * nn.sigmoid(x.mean()), "product"),
        (lambda x: nn.standardize(x), "statistic"),
        (lambda x: lax.map(nn.relu, x), "stands in a loop"),
    ],
)
def test_what_has_no_such_view_is_refused(f, message):
    with pytest.raises(jaxattr.UnsupportedOperation, match=message):
        freeze(f, jnp.ones((3, 4)))


def test_remat_is_opened():
    f = jax.checkpoint(lambda x: nn.relu(x @ jnp.eye(4)))
    x = jax.random.normal(KEY, (3, 4))
    np.testing.assert_allclose(freeze(f, x).logits(x), f(x))
