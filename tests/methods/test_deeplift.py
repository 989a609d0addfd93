"""DeepLIFT accounts for the whole change, whatever the network is made of, and equals Captum's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets import NETS, AvgPool, MaxPool, load, plain
from peers import peer, relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.rules.rescale import rescaled

KEYS = jax.random.split(jax.random.key(0), 8)


def change(f, x, start, target):
    return jnp.take_along_axis(f(x) - f(start), target[:, None], 1)[:, 0]


ARRAYS = [(n, a) for n in NETS for a in peer(f"relevance_{n}") if a.startswith("deeplift")]


@pytest.mark.parametrize(("name", "array"), mostly_slow(ARRAYS, ARRAYS[::3]))
def test_captum(name, array):
    _, pool, start = array.split(".")
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        if pool == "average":
            net = tuple(AvgPool(a.name) if isinstance(a, MaxPool) else a for a in net)
        baseline = {"zero": 0.0, "random": jnp.asarray(peer(name)["baseline"][:2])}[start]
        attribute = jaxattr.deeplift(plain(net, params), baseline=baseline)
        a = jax.jit(attribute)(x[:2], target[:2])
    assert relative_error(a, peer(f"relevance_{name}")[array]) < 1e-12


@pytest.mark.parametrize("dtype", mostly_slow(["float32", "float64"], ["float64"]))
@pytest.mark.parametrize("name", mostly_slow(NETS, ["resnet"]))
def test_complete_on_every_net(name, dtype):
    """With overlapping max-pools and residual sums too, from another baseline for each image."""
    with enable_x64(dtype == "float64"):
        net, params, x, target = load(name, dtype)
        f = plain(net, params)
        start = jnp.asarray(peer(name)["baseline"], dtype)
        a = jax.jit(jaxattr.deeplift(f, baseline=start))(x, target)
        total, wanted = a.sum((1, 2, 3)), change(f, x, start, target)
    np.testing.assert_allclose(total, wanted, rtol={"float32": 1e-5}.get(dtype, 1e-12))


def test_every_layer_accounts_for_the_change():
    """Where nothing bypasses a layer; a residual sum's branches only together."""
    with enable_x64(True):
        net, params, x, target = load("resnet", "float64")
        f = plain(net, params)
        start = jnp.asarray(peer("resnet")["baseline"], x.dtype)
        found = jax.jit(jaxattr.deeplift_details(f, baseline=start))(x, target)
        a = jax.jit(jaxattr.deeplift(f, baseline=start))(x, target)
        wanted = np.asarray(change(f, x, start, target))
        found, a = jax.device_get((found, a))
    assert relative_error(found.attribution, a) < 1e-12
    whole = {name: c.reshape(3, -1).sum(1) for name, c in found.layers.items()}
    branches = {name for name in whole if name.startswith("layer") and "relu2" not in name}
    for name in whole.keys() - branches:
        np.testing.assert_allclose(whole[name], wanted, rtol=1e-9, err_msg=name)
    both = whole["layer2/conv2/conv_general_dilated"]
    both = both + whole["layer2/downsample_conv/conv_general_dilated"]
    np.testing.assert_allclose(both, wanted, rtol=1e-9)


def flat(x):
    return x.reshape(len(x), -1)


def dense(key, n):
    return jax.random.normal(key, (n, n))


def squeeze_excite(x):
    scale = jax.nn.sigmoid(x.mean((1, 2)) @ dense(KEYS[0], 3))
    return flat(x * scale[:, None, None])


def layer_norm(x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return flat((x - mean) / jnp.sqrt(jnp.maximum(var, 0) + 1e-3))


def attention(x):
    tokens = x.reshape(len(x), -1, 3)
    q, k, v = (tokens @ dense(KEYS[i], 3) for i in range(3))
    return flat(jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v)


def overlapping(x):
    pooled = lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )
    return flat(jax.nn.relu(pooled - 0.3) ** 2)


STRANGE = {
    "squeeze_excite": squeeze_excite,
    "layer_norm": layer_norm,
    "attention": attention,
    "overlapping": overlapping,
    "global max": lambda x: x.max((1, 2)) @ dense(KEYS[3], 3),
    "gelu": lambda x: flat(jax.nn.gelu(x)),
    "silu": lambda x: flat(jax.nn.silu(x)),
    "abs and floor": lambda x: flat(jnp.abs(x) + jnp.floor(3 * jnp.tanh(x))),
    "square": lambda x: flat(x**2 + jnp.exp(x)),
    "gram": lambda x: flat(jnp.einsum("bhwc,bhwd->bcd", x, x)),
    "ratio": lambda x: flat(x / (1 + x.mean((1, 2), keepdims=True) ** 2)),
    "dense": lambda x: flat(jnp.concatenate([x, jax.nn.relu(x)], -1)),
    "chosen": lambda x: flat(jnp.where(jnp.arange(3) > 0, x, jax.nn.relu(x))),
    "straight through": lambda x: flat(x + lax.stop_gradient(jnp.round(x) - x)),
    "remat": jax.checkpoint(lambda x: flat(jax.nn.relu(x))),
    "linear loop": lambda x: flat(lax.scan(lambda c, _: (2 * c, None), x, None, 3)[0]),
}


@pytest.mark.parametrize("name", mostly_slow(STRANGE, [*STRANGE][::3]))
def test_complete_on_every_operation(name):
    """Both ways: what leads from the baseline to `x` leads back with the other sign."""
    f = STRANGE[name]
    with enable_x64(True):
        rng = np.random.default_rng(4)
        x, start = rng.normal(size=(2, 2, 6, 5, 3))
        x[:, :2] = start[:, :2]  # some of it does not change
        c = rng.normal(size=jax.eval_shape(f, x).shape)

        @jax.jit
        def multipliers(x, start):
            y, pull = jax.vjp(rescaled(f, start), x)
            return y, pull(c)[0], f(x)

        (y, there, after), (_, back, before) = (
            jax.device_get(multipliers(*ends)) for ends in ((x, start), (start, x))
        )
        total = (there * (x - start)).sum((1, 2, 3))
        np.testing.assert_allclose(y, after, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(total, (c * (after - before)).sum(-1), rtol=1e-10)
        np.testing.assert_allclose(there, back, rtol=1e-9, atol=1e-12)


def normalized(x, spelling):
    """Apply a LayerNorm without bias, by one of its spellings."""
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True) + 1e-6
    spelled = {
        "rsqrt": lambda: (x - mean) * (lax.rsqrt(var) * 1.5),
        "sqrt": lambda: (x - mean) / jnp.sqrt(var) * 1.5,
        "power": lambda: (x - mean) * var**-0.5 * 1.5,
    }
    return spelled[spelling]()


def test_norms_of_a_reference_without_variance():
    """A black image has no variance in any block: the map stays small, complete and one."""
    w1, w2 = (jax.random.normal(key, (3, 32, 32)) / 6 for key in KEYS[:2])

    def explain(x, spelling):
        def f(x):
            z = normalized(x.reshape(len(x), 4, 32), spelling)
            for first, second in zip(w1, w2, strict=True):
                z = z + jax.nn.gelu(normalized(z, spelling) @ first) @ second
            return normalized(z, spelling).mean(1)

        return jaxattr.deeplift(f)(x, jnp.zeros(2, int)), f(x)[:, 0]

    x = jax.random.normal(KEYS[2], (2, 4, 8, 4))
    maps = []
    for spelling in ("rsqrt", "sqrt", "power"):
        a, change = map(np.asarray, jax.jit(explain, static_argnums=1)(x, spelling))
        error = np.abs(a.sum((1, 2, 3), dtype=float) - change)
        assert (error < 1e-6 * np.abs(a).sum((1, 2, 3))).all()
        assert np.abs(a).max() < 100
        maps.append(a)
    assert max(relative_error(a, maps[0]) for a in maps) < 1e-4


def test_by_hand():
    """Two layers: `W2 diag((a - a') / (z - z')) W1`."""
    with enable_x64(True):
        w1, w2 = dense(KEYS[0], 12), dense(KEYS[1], 12)
        x, start = jax.random.normal(KEYS[2], (2, 1, 2, 2, 3))
        f = lambda x: jax.nn.relu(flat(x) @ w1) @ w2
        z, z0 = flat(x) @ w1, flat(start) @ w1
        m = w1 @ jnp.diag(((jnp.maximum(z, 0) - jnp.maximum(z0, 0)) / (z - z0))[0]) @ w2[:, 5]
        a = jax.jit(jaxattr.deeplift(f, baseline=start))(x, jnp.array([5]))
    np.testing.assert_allclose(a.ravel(), (m * (flat(x) - flat(start)))[0], rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_max_pool_by_hand(size):
    """Window by window: the winner where it grew, else the one that was."""
    with enable_x64(True):
        x, start = jax.random.normal(KEYS[6], (2, 1, 7, 6, 1))
        c = jax.random.normal(KEYS[7], (1, (7 - size) // 2 + 1, (6 - size) // 2 + 1, 1))
        pool = lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, size, size, 1), (1, 2, 2, 1), "VALID"
        )
        (m,) = jax.jit(lambda x, start: jax.vjp(rescaled(pool, start), x)[1](c))(x, start)
    contributions = np.zeros((7, 6))
    new, old, weights = np.asarray(x)[0, ..., 0], np.asarray(start)[0, ..., 0], np.asarray(c)
    for i, j in np.ndindex(c.shape[1:3]):
        window = np.s_[2 * i : 2 * i + size, 2 * j : 2 * j + size]
        grown = new[window].max() - old[window].max()
        winner = (new if grown > 0 else old)[window].argmax()
        row, column = np.unravel_index(winner, (size, size))
        contributions[2 * i + row, 2 * j + column] += weights[0, i, j, 0] * grown
    np.testing.assert_allclose((m * (x - start))[0, ..., 0], contributions, rtol=1e-12, atol=1e-15)


def test_multipliers_are_slopes_where_nothing_changes():
    """From `x` itself they are the gradient, at smooth activations too."""
    with enable_x64(True):
        f = lambda x: flat(jax.nn.gelu(jax.nn.relu(x) * jnp.tanh(x)))
        x = jax.random.normal(KEYS[2], (1, 2, 3, 3))
        for step, tolerance in ((0, 1e-12), (1e-9, 1e-7)):
            (m,) = jax.jit(lambda x, s=step: jax.vjp(rescaled(f, x + s), x)[1](jnp.ones((1, 18))))(
                x
            )
            gradient = jax.jit(jax.grad(lambda x: f(x).sum()))(x)
            np.testing.assert_allclose(m, gradient, rtol=tolerance)


def test_what_cannot_be_split_is_refused():
    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    for f, message in {
        lambda x: jnp.cumprod(flat(x), 1): "`cumprod`",
        lambda x: jnp.where(flat(x) > flat(x)[:, :1], flat(x), 2 * flat(x)[:, :1]): "`select_n`",
        lambda x: flat(
            lax.while_loop(lambda c: c[1] < 3, lambda c: (jax.nn.relu(c[0]), c[1] + 1), (x, 0))[0]
        ): "stands in a while",
    }.items():
        with pytest.raises(jaxattr.UnsupportedOperation, match=message):
            jaxattr.deeplift(f)(x, target)


def test_a_baseline_of_another_shape():
    f = lambda x: flat(x)
    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    with pytest.raises(ValueError, match=r"baseline has shape \(2, 4, 4, 3\)"):
        jaxattr.deeplift(f, baseline=jnp.ones((2, 4, 4, 3)))(x, target)
    with pytest.raises(ValueError, match=r"baseline has shape \(5,\)"):
        jaxattr.deeplift(f, baseline=jnp.ones(5))(x, target)
