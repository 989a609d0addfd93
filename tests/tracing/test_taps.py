"""Layers by name: reading values, adding to them, cutting a function in two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import FRAMEWORKS
from jax import lax, nn
from jax.ad_checkpoint import checkpoint_name
from nets import NETS, load, plain
from speed import mostly_slow

from jaxattr import sites, taps
from jaxattr.tracing.taps import split

X = jax.random.normal(jax.random.key(0), (2, 3))


def scoped(name, f):
    return jax.named_scope(name)(f)


def stack(x):
    x = scoped("first", lambda x: scoped("conv", jnp.sin)(x) * 2)(x)
    x = scoped("conv", lambda x: x + 1)(x)
    x = checkpoint_name(x * 3, "tagged")
    return scoped("second", nn.relu)(x).sum(-1)


def test_a_layer_by_its_position():
    """It is the one that `sites` lists there, whatever has names."""
    f = jax.jit(
        lambda x: lax.fori_loop(0, x.size, lambda i, y: nn.relu(y - i), stack(x) @ jnp.ones((2, 3)))
    )
    for site in sites(stack, X):
        halves = split(stack, X, layer=site.position)
        value = halves.before(X)
        assert value.shape == site.shape
        np.testing.assert_allclose(halves.after(value, X), stack(X), rtol=1e-6)
    assert taps(stack, [0])(X).values[0].shape == (2, 3)
    with pytest.raises(ValueError, match=r"layer is 99; the positions .* are 0 to 6"):
        split(stack, X, layer=99)
    inner = next(s for s in sites(f, X) if s.op == "relu" and s.shape == (3,))
    with pytest.raises(ValueError, match=r"layer \d is `relu` .*inside a loop"):
        split(f, X, layer=inner.position)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("first", 2 * jnp.sin(X)),
        ("first/conv", jnp.sin(X)),
        ("first.conv", jnp.sin(X)),
        ("conv", 2 * jnp.sin(X) + 1),  # the outermost of that name
        ("tagged", 6 * jnp.sin(X) + 3),
        ("second", nn.relu(6 * jnp.sin(X) + 3)),
    ],
)
@pytest.mark.parametrize("f", [stack, jax.jit(stack), jax.checkpoint(stack), jax.vmap(stack)])
def test_the_last_value_under_a_name(f, layer, expected):
    np.testing.assert_allclose(jax.jit(taps(f, [layer]))(X).values[layer], expected, rtol=1e-6)
    halves = split(f, X, layer=layer)
    np.testing.assert_allclose(halves.before(X), expected, rtol=1e-6)
    np.testing.assert_allclose(halves.after(halves.before(X), X), f(X), rtol=1e-6)


def test_adding_zero_gives_the_gradient_at_a_layer():
    tapped = taps(stack, ["first", "tagged"])
    zeros = {"first": jnp.zeros_like(X), "tagged": jnp.zeros_like(X)}
    gradients = jax.grad(lambda add: tapped(X, add).output.sum())(zeros)
    gate = (6 * jnp.sin(X) + 3 > 0).astype(float)
    np.testing.assert_allclose(gradients["tagged"], gate)
    np.testing.assert_allclose(gradients["first"], 3 * gate)
    moved = tapped(X, {"first": jnp.ones_like(X)})
    np.testing.assert_allclose(moved.values["first"], 2 * jnp.sin(X) + 1, rtol=1e-6)
    np.testing.assert_allclose(moved.values["tagged"], 6 * jnp.sin(X) + 6, rtol=1e-6)


def test_what_bypasses_a_layer_comes_from_the_image():
    f = lambda x: (scoped("branch", jnp.sin)(x) + x**2).sum(-1)
    halves = split(f, X, layer="branch")
    value = jnp.ones_like(X)
    np.testing.assert_allclose(halves.after(value, X), (value + X**2).sum(-1), rtol=1e-6)
    gradient = jax.grad(lambda v: halves.after(v, X).sum())(value)
    np.testing.assert_allclose(gradient, jnp.ones_like(X))


def test_errors():
    with pytest.raises(
        ValueError, match=r"did you mean tagged\?.*known layers are first, first/conv"
    ):
        taps(stack, ["taged"])(X)
    with pytest.raises(ValueError, match="nothing in the function has a name"):
        split(jnp.sin, X, layer="layer4")
    turn = lambda c: (scoped("relu", nn.relu)(c[0]), c[1] + 1)
    loop = lambda x: lax.while_loop(lambda c: c[1] < 3, turn, (x, 0))[0]
    with pytest.raises(ValueError, match="inside a loop"):
        split(loop, X, layer="relu")
    twins = lambda x: scoped("a", scoped("c", jnp.sin))(x) + scoped("b", scoped("c", jnp.cos))(x)
    with pytest.raises(ValueError, match="ambiguous: it could be a/c, b/c"):
        split(twins, X, layer="c")
    with pytest.raises(ValueError, match="cannot add at"):
        taps(stack, ["first"])(X, {"second": X})
    with pytest.raises(ValueError, match="no layer of shape"):
        split(lambda x: x @ jnp.ones((3, 2)), X)


DEFAULTS = {"vgg": ("relu3", 4, 5), "resnet": ("layer2", 5, 5), "lite": ("act3", 4, 5)}


@pytest.mark.parametrize("framework", mostly_slow(["plain", *FRAMEWORKS], ["plain", "equinox"]))
@pytest.mark.parametrize("name", NETS)
def test_default_is_the_last_spatial_layer(name, framework):
    """In any memory layout: Equinox keeps channels first, one image at a time."""
    net, params, x, _ = load(name)
    layer, height, width = DEFAULTS[name]
    f = {"plain": plain, **FRAMEWORKS}[framework](net, params)
    ours, named = split(f, x), split(plain(net, params), x, layer=layer)
    value = jnp.moveaxis(jax.jit(ours.before)(x), ours.channel_axis, -1)
    assert value.shape[1:3] == (height, width)
    np.testing.assert_allclose(value, jax.jit(named.before)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_name_their_layers(framework):
    net, params, x, _ = load("resnet")
    ours = split(FRAMEWORKS[framework](net, params), x, layer="layer1")
    named = split(plain(net, params), x, layer="layer1").before(x)
    value = jnp.moveaxis(jax.jit(ours.before)(x), ours.channel_axis, -1)
    np.testing.assert_allclose(value, named, rtol=1e-4, atol=1e-5)


def test_a_default_layer_is_not_taken_before_a_shard_map_with_more_layers():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("images",))
    part = jax.sharding.PartitionSpec("images")
    kernel = jnp.ones((3, 3, 3, 3)) / 27
    layer = lambda x: jax.nn.relu(jax.lax.conv(x, kernel, (1, 1), "SAME"))
    spread = jax.shard_map(layer, mesh=mesh, in_specs=part, out_specs=part)
    x = jnp.ones((1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"lie in the shard_map at \S*test_taps\.py:\d+"):
        split(lambda x: spread(layer(x)).mean((2, 3)), x)
