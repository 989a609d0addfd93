"""A function that was read has the same values and, without rules, the same derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from frameworks import FRAMEWORKS
from jax import lax, nn
from nets import NETS, Conv, Dense, Residual, load, plain
from peers import relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.rules import gates
from jaxattr.tracing import local

X = jax.random.normal(jax.random.key(0), (3, 4))
W = jax.random.normal(jax.random.key(1), (4, 4))


def block(x, w=W):
    return nn.relu(x @ w) + x


def scanned(x):
    def body(carry, w):
        y = block(carry, w)
        return y, y.sum()

    last, sums = lax.scan(body, x, jnp.stack([W, W.T, -W]), reverse=True)
    return last.sum(1) + sums.sum()


def branched(x):
    return lax.switch(jnp.int32(1), [jnp.tanh, block, jnp.negative], x)


def looped(x):
    turn = lambda state: (state[0] + 1, block(state[1], W * 0.5))
    return lax.while_loop(lambda state: state[0] < 3, turn, (0, x))[1]


@functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
def saved(x):
    return block(block(x))


PROGRAMS = {
    "plain": block,
    "jit": jax.jit(block),
    "remat": saved,
    "scan": scanned,
    "map": lambda x: lax.map(block, x[:, None]),
    "cond": branched,
    "while": looped,
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, c: block(c, W / (i + 1)), x),
    "vmap": jax.vmap(lambda row: block(row)),
    "nested": lambda x: jax.jit(saved)(scanned(jax.jit(block)(x))[:, None] * x),
    "einsum": lambda x: jnp.einsum("bi,ij,bj->b", x, W, x),
    "constant output": lambda x: (x * 0 + W[0], W),
}
DIFFERENTIABLE = {name: f for name, f in PROGRAMS.items() if name != "while"}


def total(f):
    return lambda x: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(f(x)))


@pytest.mark.parametrize("rules", [{}, {"activation": gates.guided}], ids=["none", "guided"])
@pytest.mark.parametrize("f", PROGRAMS.values(), ids=PROGRAMS)
def test_values(f, rules):
    read = jaxattr.with_rules(f, rules)
    ours, theirs = jax.jit(lambda x: (read(x), f(x)))(X)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    if f is block:
        np.testing.assert_allclose(read(X), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("f", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_gradient_without_rules(f):
    read = jaxattr.lowered(f)
    expected = jax.jit(jax.grad(total(f)))(X)
    if f is block:
        np.testing.assert_allclose(jax.grad(total(read))(X), expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(total(read)))(X), expected, rtol=2e-5, atol=1e-6)


INSIDE = {k: f for k, f in DIFFERENTIABLE.items() if k not in ("einsum", "constant output")}


@pytest.mark.parametrize("name", mostly_slow(INSIDE, [*INSIDE][::2]))
def test_a_rule_reaches_inside(name):
    """The true gate changes nothing wherever the ReLU stands, a closed one does."""
    f = INSIDE[name]

    def gated(backward):
        rules = {"activation": gates.gate(backward)}
        return jax.jit(jax.grad(total(jaxattr.with_rules(f, rules))))(x)

    with enable_x64():
        x = X.astype(float)
        expected = jax.jit(jax.grad(total(f)))(x)
        assert relative_error(gated(lambda g, z, slope: g * slope()), expected) < 1e-12
        assert relative_error(gated(lambda g, z, slope: 0 * g), expected) > 1e-2


def test_transformations_compose():
    """jit, vmap and jacrev of what was read give the Jacobian written by hand."""
    f = jaxattr.with_rules(lambda x: nn.relu(W @ x), {"activation": gates.guided})
    by_hand = lambda row: (jnp.maximum(jnp.eye(4), 0) * (W @ row > 0)[:, None]) @ W
    jacobians = jax.jit(jax.vmap(jax.jacrev(f)))(X)
    np.testing.assert_allclose(jacobians, jax.vmap(by_hand)(X), rtol=1e-6, atol=1e-6)


def test_closed_over_tracers_are_differentiable():
    """Weights may be arguments of a surrounding transformation."""

    def loss(w, x):
        return jax.jit(
            jaxattr.with_rules(lambda x: jnp.clip(x @ w, 0).sum(), {"activation": gates.guided})
        )(x)

    expected = jax.grad(lambda w: jnp.maximum(X @ w, 0).sum())(W)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(W, X), expected, rtol=1e-6)
    stacked = jax.vmap(loss, in_axes=(0, None))(jnp.stack([W, -W]), X)
    np.testing.assert_allclose(stacked[1], loss(-W, X), rtol=1e-6)


def test_weights_stay_arguments():
    """Under jit no weight becomes a constant of the program."""

    @jax.jit
    def maps(w, x):
        return jax.grad(jaxattr.lowered(lambda x: nn.relu(x @ w).sum()))(x)

    big = jnp.ones((4, 5000))
    assert len(maps.lower(big, X).as_text()) < 20_000


def test_a_keyword_output_tree_and_integer_outputs():
    f = lambda x: {"value": nn.relu(x), "index": jnp.argmax(x, -1), "none": None}
    read = jax.jit(jaxattr.with_rules(f, {"activation": gates.guided}))(X)
    assert set(read) == {"value", "index", "none"}
    np.testing.assert_array_equal(read["index"], f(X)["index"])


@pytest.mark.parametrize(
    "dtype", mostly_slow(["bfloat16", "float16", "float32", "float64"], ["bfloat16", "float64"])
)
def test_dtypes(dtype):
    with enable_x64(True):
        net, params, x, target = load("vgg", dtype)
        f = jax.jit(plain(net, params))
        read = jax.jit(jaxattr.with_rules(f, {"activation": gates.guided}))
        assert read(x).dtype == dtype
        assert jax.jit(jaxattr.guided_backprop(f))(x, target).dtype == dtype
        np.testing.assert_allclose(
            read(x).astype(float), f(x).astype(float), rtol=float(jnp.finfo(dtype).eps) * 50
        )


@pytest.mark.parametrize("name", NETS)
def test_every_framework_has_the_same_sites(name):
    """The same network in Flax, Equinox and Haiku: the same activations, pools and sums."""
    net, params, x, _ = load(name)
    listed = {}
    for label, build in {"plain": plain, **FRAMEWORKS}.items():
        found = jaxattr.sites(build(net, params), x)
        listed[label] = [s.kind for s in found if s.kind in ("activation", "max_pool", "sum")]
    assert len(listed["plain"]) >= 4
    assert all(kinds == listed["plain"] for kinds in listed.values()), listed


def layers(net):
    """Count the convolutions and dense layers of a network."""
    inside = (
        layers((*layer.main, *layer.shortcut)) for layer in net if isinstance(layer, Residual)
    )
    return sum(isinstance(layer, Conv | Dense) for layer in net) + sum(inside)


@pytest.mark.parametrize("framework", mostly_slow(["plain", *FRAMEWORKS], ["plain", "nnx"]))
@pytest.mark.parametrize("name", NETS)
def test_bias_and_batch_norm_fold_into_their_layer(name, framework):
    """Each layer is one affine operation, named after its convolution, of the same value."""
    net, params, x, _ = load(name)
    f = {"plain": plain, **FRAMEWORKS}[framework](net, params)
    affine = [s for s in jaxattr.sites(f, x) if s.kind == "affine"]
    pools = {"vgg": 0, "resnet": 1, "lite": 1}[name]  # an average's division
    assert len(affine) - pools == layers(net)
    if framework != "equinox":
        assert affine[0].name.endswith(net[0].name)
    folded = jaxattr.with_rules(f, {"affine": local.plain})
    assert relative_error(*jax.jit(lambda x: (folded(x), f(x)))(x)) < 1e-5


@pytest.mark.parametrize("name", NETS)
def test_sites_are_named_in_order(name):
    net, params, x, _ = load(name)
    sites = jaxattr.sites(plain(net, params), jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert [s.position for s in sites] == list(range(len(sites)))
    names = [s.name for s in sites if s.kind == "activation"]
    flat = [layer.name for layer in net if "elu" in layer.name or "act" in layer.name]
    assert [n for n in names if "/" not in n] == flat
    assert all(s.shape[0] == len(x) and "tests/nets.py" in s.source for s in sites)


def test_training_mode_is_an_error():
    """NNX's BatchNorm in training mode would change the module inside a trace; it says so."""
    norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    with pytest.raises(Exception, match=r"(?i)trace|mutate"):
        jaxattr.lowered(lambda x: norm(x))(X)


@pytest.mark.parametrize(
    "rules",
    [pytest.param({}, marks=pytest.mark.slow), {"activation": gates.guided}],
    ids=["none", "guided"],
)
def test_reading_twice_is_reading_once(rules):
    """A function that was read and lowered is read again like any other."""
    net, params, x, _ = load("lite")
    f = plain(net, params)
    once, twice = jaxattr.with_rules(f, rules), jaxattr.with_rules(jaxattr.lowered(f), rules)
    kinds = lambda f: [s.kind for s in jaxattr.sites(f, x)]
    assert kinds(jaxattr.lowered(f)) == kinds(f)
    gradient = lambda f: jax.jit(jax.grad(lambda x: (f(x) * jnp.arange(5)).sum()))(x)
    assert relative_error(gradient(twice), gradient(once)) < 1e-5
    assert " conditional(" not in jax.jit(twice).lower(x).compile().as_text()
