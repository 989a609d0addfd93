"""FullGrad: the terms of a logit are all there, each where it belongs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import FRAMEWORKS
from jax import lax, nn
from nets import NETS, RELU6S, load, plain
from peers import peer, relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.rules import gates
from jaxattr.tracing.shifts import shifted

PEERS = {k: v for k, v in peer("papers").items() if ".fullgrad." in k}


def total(found):
    """Sum all terms of each image."""
    terms = [found.input, *found.biases.values()]
    return sum(a.reshape(len(a), -1).sum(1) for a in terms)


def picked(logits, target):
    return logits[jnp.arange(len(target)), target]


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_against_the_authors_code(name):
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        found = jax.jit(jaxattr.fullgrad_details(plain(net, params)))(x[:2], target[:2])
    ours = {"map": found.attribution, "input": found.input}
    ours |= {f"bias.{k.replace('/', '.')}": v for k, v in found.biases.items()}
    theirs = {k.removeprefix(f"{name}.fullgrad."): v for k, v in PEERS.items() if name in k}
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert relative_error(ours[key], value) < 1e-12, key


@pytest.mark.parametrize("name", mostly_slow(NETS, ["lite"]))
def test_terms_sum_to_the_logit(name):
    with enable_x64(True):
        net, params, x, target = load(name, "float64")
        f = jax.jit(plain(net, params))
        found = jax.jit(jaxattr.fullgrad_details(f))(x, target)
        np.testing.assert_allclose(
            total(found), jax.jit(lambda x: picked(f(x), target))(x), rtol=1e-8
        )


def test_terms_of_parameters():
    """Summed over positions, a layer's term is its bias times the gradient of the bias."""
    with enable_x64(True):
        net, params, x, target = load("vgg", "float64")
        biases = {k: v for k, v in params.items() if k.endswith("bias")}
        score = lambda b: picked(plain(net, params | b)(x[:1]), target[:1])[0]
        gradient = jax.jit(jax.grad(score))(biases)
        found = jax.jit(jaxattr.fullgrad_details(plain(net, params)))(x[:1], target[:1])
    assert len(found.biases) == len(biases)
    for layer, term in found.biases.items():
        key = f"{layer}.bias"
        expected = gradient[key] * biases[key]
        np.testing.assert_allclose(
            np.asarray(term).reshape(-1, term.shape[-1]).sum(0), expected, rtol=1e-9, atol=1e-12
        )


def layer_norm(h):
    centred = h - h.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) + 0.3


def scanned(h):
    w = jnp.stack([jnp.eye(h.shape[-1]) * s for s in (0.9, -1.1)])
    return lax.scan(lambda h, w: (jax.nn.silu(h @ w + 0.2), None), h, w)[0]


def switched(h):
    return lax.cond(h.sum() > 1e9, lambda h: h, lambda h: jax.nn.softplus(h - 0.1), h)


BENT = {
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "sigmoid": jax.nn.sigmoid,
    "leaky_relu": lambda h: jax.nn.leaky_relu(h + 0.1, 0.2),
    **RELU6S,
    "padding": lambda h: jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.5),
    "squeeze and excite": lambda h: h * jax.nn.sigmoid(h.mean((1, 2), keepdims=True) + 0.1),
    "layer norm": layer_norm,
    "softmax": lambda h: jax.nn.softmax(h, -1),
    "where": lambda h: jnp.where(h > 0.2, h * 2 + 1, h**2),
    "scan": scanned,
    "cond": switched,
    "remat": jax.checkpoint(lambda h: jax.nn.silu(h + 0.1) * 2 + 1),
    "constant image": lambda h: jnp.concatenate([h, jnp.ones_like(h)], -1),
}


@pytest.mark.parametrize("bend", mostly_slow(BENT, [*BENT][::5]))
def test_any_operation_is_complete(bend):
    """Offsets of activations, products, normalizations, loops: nothing is lost."""
    with enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        x = jax.random.normal(keys[0], (3, 6, 5, 3))
        w, b = jax.random.normal(keys[1], (3, 4)), jax.random.normal(keys[2], (4,))

        def f(x):
            h = BENT[bend](x @ w + b)
            return jnp.tanh(h).sum((1, 2)) @ jnp.ones((h.shape[-1], 2)) + jnp.array([1.0, 0.1])

        target = jnp.array([0, 1, 0])
        found = jax.jit(jaxattr.fullgrad_details(f))(x, target)
        np.testing.assert_allclose(
            total(found), jax.jit(lambda x: picked(f(x), target))(x), rtol=1e-8
        )


def test_the_gradient_at_a_kink_fits_the_offset():
    """Exactly at 6, a ReLU6 is its offset, however it is spelled, and is not counted by halves."""
    x, target = jnp.full((1, 2, 2, 1), 6.0), jnp.array([0])
    for relu6 in RELU6S.values():
        found = jax.jit(jaxattr.fullgrad_details(lambda x, a=relu6: a(x).sum((1, 2))))(x, target)
        assert total(found) == 24
        assert found.input.sum() == 0


def test_only_what_adds_something_is_listed():
    f = lambda x: (
        jax.nn.relu(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) @ jnp.ones((3, 2))) * 3
    ).max((1, 2))
    found = jax.jit(jaxattr.fullgrad_details(f))(jnp.ones((1, 4, 4, 3)), jnp.array([0]))
    assert found.biases == {}


def test_memory_layout_does_not_show():
    """The same network with channels first inside gives the same map and terms."""
    _, params, x, target = load("vgg")
    kernel, bias = params["conv1.weight"], params["conv1.bias"]

    def network(x, inside):
        out = "NCHW" if inside == "first" else "NHWC"
        numbers = ("NHWC", "OIHW", out)
        h = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        h = jax.nn.relu(h + (bias[:, None, None] if inside == "first" else bias))
        return h.mean((2, 3) if inside == "first" else (1, 2))

    maps = [
        jax.jit(jaxattr.fullgrad(lambda x, inside=inside: network(x, inside)))(x, target)
        for inside in ("first", "last")
    ]
    assert relative_error(maps[1], maps[0]) < 1e-5


@pytest.mark.parametrize("framework", mostly_slow(["nnx", "equinox"], []))
def test_every_framework(framework):
    net, params, x, target = load("lite")
    found = [
        jax.jit(jaxattr.fullgrad_details(build(net, params)))(x, target)
        for build in (plain, FRAMEWORKS[framework])
    ]
    assert relative_error(found[1].attribution, found[0].attribution) < 1e-4
    assert len(found[0].biases) == len(found[1].biases)


def test_names_are_unique_without_scopes():
    f = lambda x: jax.nn.silu(jax.nn.silu(x @ jnp.ones((3, 3)) + 1) + 2).mean((1, 2))
    found = jax.jit(jaxattr.fullgrad_details(f))(jnp.ones((1, 4, 4, 3)), jnp.array([0]))
    assert set(found.biases) == {"dot_general[0]", "silu[1]", "add[2]", "silu[3]"}


def test_terms_differentiate_in_the_weights():
    """Terms are functions of the weights, by themselves and through the gradient."""
    with enable_x64(True):
        net, params, x, target = load("lite", "float64")

        def term(scale):
            scaled = params | {"stem.weight": params["stem.weight"] * scale}
            found = jax.jit(jaxattr.fullgrad_details(plain(net, scaled)))(x, target)
            return found.biases["act0"].sum() + found.biases["stem"].sum()

        step = 1e-6
        compiled = jax.jit(term)
        slope = (compiled(1 + step) - compiled(1 - step)) / (2 * step)
        np.testing.assert_allclose(jax.jit(jax.grad(term))(1.0), slope, rtol=1e-5)


def test_a_term_left_out_is_missed():
    """Without the offsets of ReLU6 the terms of `lite` do not add up: the test above can fail."""
    with enable_x64(True):
        net, params, x, target = load("lite", "float64")
        f = jax.jit(plain(net, params))
        found = jax.jit(jaxattr.fullgrad_details(f))(x, target)
        offsets = [k for k in found.biases if k.rpartition("/")[2].startswith("act")]
        assert len(offsets) == 5
        kept = found._replace(biases={k: v for k, v in found.biases.items() if k not in offsets})
        assert (jnp.abs(total(kept) - picked(f(x), target)) > 1e-3).any()


def test_the_value_does_not_depend_on_what_is_grown():
    net, params, x, _ = load("vgg")
    f = plain(net, params)

    @jax.jit
    def grown(x):
        network = shifted(f, x, gates.gradient)
        ones = {k: jnp.ones(s.site.shape) for k, s in network.shifts.items()}
        return network.output(x, ones), f(x)

    np.testing.assert_allclose(*grown(x), rtol=1e-5)


W = 0.5 * jax.random.normal(jax.random.key(0), (5, 4, 4))
BIAS = jnp.array([0.1, -0.2, 0.3, 0.1])


def attention(x):
    """By JAX's own function, whose sums have heads in front."""
    h = nn.relu(x.reshape(-1, 16, 4) @ W[0] + BIAS)
    q, k, v = ((h @ w + BIAS).reshape(-1, 16, 2, 2) for w in W[1:4])
    a = nn.dot_product_attention(q, k, v).reshape(-1, 16, 4)
    return nn.relu(h + a + BIAS).mean(1) @ W[4]


def windows(x):
    """Attention inside windows, which are in one axis with the batch."""
    h = nn.relu(x @ W[0] + BIAS)
    w = h.reshape(-1, 2, 2, 2, 2, 4).swapaxes(2, 3).reshape(-1, 4, 4)
    q, k, v = (w @ u + BIAS for u in W[1:4])
    a = (nn.softmax(q @ k.swapaxes(1, 2)) @ v).reshape(-1, 2, 2, 2, 2, 4)
    return nn.relu(h + a.swapaxes(2, 3).reshape(-1, 4, 4, 4)).mean((1, 2)) @ W[4]


def routed(x):
    """A mixture of experts: the tokens of all images in one axis, the experts in front."""
    h = (x @ W[0] + BIAS).reshape(-1, 4)
    experts = nn.silu(jnp.einsum("td,edf->etf", h, W[2:4]) + BIAS)
    mixed = jnp.einsum("te,etd->td", nn.softmax(h @ W[1][:, :2]), experts)
    return nn.relu(mixed).reshape(-1, 16, 4).mean(1) @ W[4]


def heads_first(x):
    """Three heads in front of a batch of three."""
    h = nn.relu(x.reshape(-1, 16, 4) @ W[0] + BIAS)
    return nn.silu(jnp.einsum("btd,hde->hbte", h, W[1:4]) + BIAS).mean((0, 2)) @ W[4]


@pytest.mark.parametrize("f", mostly_slow([attention, windows, routed, heads_first], [heads_first]))
def test_the_batch_may_be_any_axis_on_the_way(f):
    """Batch = one by one, and the terms add up."""
    x, target = jax.random.normal(jax.random.key(1), (3, 4, 4, 4)), jnp.array([1, 0, 2])
    for method in (jaxattr.fullgrad_details, jaxattr.tr_gbp_details):
        explain = jax.jit(method(f))
        whole = explain(x, target)
        single = [explain(x[i : i + 1], target[i : i + 1]).attribution for i in range(3)]
        size = 1e-5 * abs(whole.attribution).max()
        np.testing.assert_allclose(whole.attribution, jnp.concatenate(single), 1e-5, size)
        if method is jaxattr.fullgrad_details:
            np.testing.assert_allclose(total(whole), picked(f(x), target), 1e-4, 1e-6)
