"""Relative sectional propagation: its authors' maps, a slow reference, signs and sums."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets import RELUS, load, plain
from peers import peer, relative_error
from precision import enable_x64
from relative_nets import EVERY, authors, case
from speed import mostly_slow

import jaxattr
from jaxattr.methods.rsp import SECTIONAL, balanced, purged, relative_map, sectional
from jaxattr.rules.contributions import affine
from jaxattr.rules.propagation import propagate
from jaxattr.tracing.taps import split

KEYS = jax.random.split(jax.random.key(0), 6)
OTHERS = ("clip(z, 0)", "where(z > 0, z, 0)")
FEATURES = {"vgg": "relu3", "stack": "relu4"}


@pytest.mark.parametrize("start", mostly_slow(["target", "hostile"], ["hostile"]))
@pytest.mark.parametrize("name", mostly_slow(FEATURES, ["stack"]))
def test_the_authors_code(name, start):
    """Down from their start, without purging."""
    theirs = peer("relative")
    with enable_x64(True):
        f, x, target = authors(name)

        def one(x, r):
            before = split(f, x[None], layer=FEATURES[name]).before

            return propagate(before, SECTIONAL, x[None], target, lambda *_: r[None])[0]

        a = jax.jit(jax.vmap(one))(x, jnp.asarray(theirs[f"{name}.start.{start}"]))
    assert relative_error(a, theirs[f"{name}.rsp.{start}"]) < 1e-12


@pytest.mark.parametrize("name", mostly_slow(FEATURES, ["stack"]))
def test_the_authors_start(name):
    """Theirs is ours with what speaks against the class left in."""
    theirs = np.maximum(peer("relative")[f"{name}.start.target"], 0)
    with enable_x64(True):
        f, x, target = authors(name)

        @jax.jit
        def start(x, t):
            halves = split(f, x, layer=FEATURES[name])
            return relative_map(halves, x, halves.before(x), t)

        for i in range(len(x)):
            ours = start(x[i : i + 1], target[i : i + 1])
            assert relative_error(ours[0], theirs[i]) < 1e-12


def test_the_start_by_hand():
    """`n G^t` less every hostile map; -1 counts for nothing."""
    with enable_x64(True):
        f, x, _ = case("resnet")
        x = x[:1]
        lists = ((2,), (2, -1), (2, 5), (2, 5, -1), (2, 5, 0), (2, -1, 0, 5))

        @jax.jit
        def parts(x):
            halves = split(f, x, layer="layer2")
            value = halves.before(x)
            gradients = jax.jacobian(lambda v: halves.after(v, x)[0])(value)[:, 0]
            maps = [relative_map(halves, x, value, jnp.array(classes)) for classes in lists]
            return value, gradients, maps

        value, gradients, maps = jax.device_get(parts(x))
    found = dict(zip(lists, maps, strict=True))
    weights = np.asarray(gradients).mean((1, 2), keepdims=True)
    maps = np.maximum(np.asarray(value) * weights, 0)
    maps /= maps.max((1, 2, 3), keepdims=True)
    for classes, got in found.items():
        hostile = [c for c in classes[1:] if c >= 0]
        wanted = max(len(hostile), 1) * maps[2] - sum(maps[c] for c in hostile)
        np.testing.assert_allclose(got[0], wanted, rtol=1e-9, atol=1e-15)


def test_purging_and_balance():
    r = jnp.array([[3.0, -1.0, 0.5], [-2.0, 1.0, -1.0], [1.0, -1.0, 0.0]])
    kept = purged(r, (1,))
    np.testing.assert_array_equal(kept, [[3.0, 0, 0.5], [-2.0, 0, -1.0], [0, 0, 0]])
    np.testing.assert_array_equal(purged(kept, (1,)), kept)
    scaled = np.asarray(balanced(kept))
    np.testing.assert_allclose([scaled[scaled > 0].sum(), scaled[scaled < 0].sum()], [2, -1], 1e-6)
    np.testing.assert_allclose(scaled[0], kept[0] * 2 / 3.5, rtol=1e-6)
    for alone in (jnp.abs(kept), -jnp.abs(kept)):
        np.testing.assert_allclose(balanced(alone), alone / jnp.abs(alone).sum(), rtol=1e-6)
    np.testing.assert_array_equal(balanced(0 * kept), 0 * kept)


CONVOLUTIONS = {
    "3x3": {"kernel": (3, 3), "strides": (1, 1), "padding": ((1, 1), (1, 1))},
    "strided": {"kernel": (3, 2), "strides": (2, 1), "padding": ((0, 1), (1, 0))},
    "depthwise": {"kernel": (3, 3), "strides": (1, 2), "padding": ((1, 1), (1, 1)), "groups": 4},
    "grouped": {"kernel": (2, 3), "strides": (1, 1), "padding": ((0, 0), (1, 1)), "groups": 2},
    "dilated": {
        "kernel": (2, 2),
        "strides": (1, 1),
        "padding": ((1, 1), (0, 0)),
        "dilation": (2, 1),
    },
    "1x1": {"kernel": (1, 1), "strides": (1, 1), "padding": ((0, 0), (0, 0))},
}


def slow(x, r, kernel, strides, padding, groups=1, dilation=(1, 1), *, pointwise=False):
    """Apply the rule by loops: each sign by the weights that its own relevance makes."""
    (height, width, inputs), (rows, columns, outputs) = x.shape, r.shape
    per_group = inputs // groups

    def sees(p, tap):
        """Return where a tap reads at an output position, or None in the padding."""
        at = [p[a] * strides[a] + tap[a] * dilation[a] - padding[a][0] for a in (0, 1)]
        return tuple(at) if 0 <= at[0] < height and 0 <= at[1] < width else None

    positions = list(itertools.product(range(rows), range(columns)))
    taps = list(itertools.product(*map(range, kernel)))
    down = np.zeros_like(x)
    for sign in (1, -1):
        part = np.maximum(sign * r, 0)
        for k in range(outputs):
            first = k // (outputs // groups) * per_group
            channels = slice(first, first + per_group)
            made = {
                tap: sum(
                    part[(*p, k)] * x[(*at, channels)] for p in positions if (at := sees(p, tap))
                )
                for tap in taps
            }
            for p in positions:
                reads = [(tap, at) for tap in taps if (at := sees(p, tap))]
                z = sum(np.sum(made[tap] * x[(*at, channels)]) for tap, at in reads)
                for tap, at in reads:
                    if part[(*p, k)] > 0:
                        share = made[tap] * x[(*at, channels)] / z
                        down[(*at, channels)] += sign * part[(*p, k)] * share
    if kernel == (1, 1) and not pointwise:
        return down
    return 2 * down - (2 * down.sum() - r.sum()) / (x > 0).sum() * (x > 0)


@pytest.mark.parametrize(
    ("name", "pointwise"),
    mostly_slow(
        [*((name, False) for name in CONVOLUTIONS), ("1x1", True)],
        [("3x3", False), ("1x1", True)],
    ),
)
def test_slow_reference(name, pointwise):
    settings = CONVOLUTIONS[name]
    kernel, groups = settings["kernel"], settings.get("groups", 1)
    with enable_x64(True):
        x = jax.nn.relu(0.5 + jax.random.normal(KEYS[0], (1, 5, 6, 4)))
        w = jax.random.normal(KEYS[1], (*kernel, 4 // groups, 8))
        f = lambda x: lax.conv_general_dilated(
            x,
            w,
            settings["strides"],
            settings["padding"],
            rhs_dilation=settings.get("dilation"),
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        r = jax.random.normal(KEYS[2], jax.eval_shape(f, x).shape)
        ruled = jaxattr.with_rules(f, {"affine": affine(partial(sectional, pointwise=pointwise))})
        (down,) = jax.jit(lambda x, r: jax.vjp(ruled, x)[1](r))(x, r)
    wanted = slow(np.asarray(x)[0], np.asarray(r)[0], **settings, pointwise=pointwise)
    np.testing.assert_allclose(down[0], wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.asarray(down).sum(), np.asarray(r).sum(), rtol=1e-9)


@pytest.mark.parametrize("name", mostly_slow(["tiny", *EVERY], ["tiny"]))
def test_sums_without_purging(name):
    """The map sums to what it starts from: 2 less 1."""
    with enable_x64(True):
        f, x, target = case(name)
        a = np.asarray(jax.jit(jaxattr.rsp(f, purge=False))(x, target))
    np.testing.assert_allclose(a.sum((1, 2, 3)), 1, rtol=1e-8)


def test_the_contrast_sums_without_purging():
    with enable_x64(True):
        f, x, target = case("tiny")
        a = np.asarray(jax.jit(jaxattr.contrastive_rsp(f, purge=False))(x, target))
    np.testing.assert_allclose(a.sum((1, 2, 3)), 1, rtol=1e-8)


@pytest.mark.parametrize("method", [jaxattr.rsp, jaxattr.contrastive_rsp])
def test_layers_of_one_position_shift_only_if_asked(method):
    """The sum stays; the background of a 1x1 layer, zero before, falls below it."""
    kernels = jnp.array([[[1.0, -1.0]], [[0.5, 1.0]]]), jnp.array([[1.0, -1.0], [0.5, 1.0]])

    def f(x):
        x = jnp.concatenate([x, 1 - x], -1)
        with jax.named_scope("features"):
            for kernel in kernels:
                x = jax.nn.relu(jnp.einsum("bhwc,ck->bhwk", x, kernel.reshape(2, 2)))
        return x.mean((1, 2)) @ jnp.array([[1.0, -1.0], [-1.0, 1.0]])

    x, target = jnp.array([1.0, 0.75, 0.5, 0.0]).reshape(1, 2, 2, 1), jnp.array([0])
    plain_, shifts = (
        jax.jit(method(f, layer="features", pointwise=p))(x, target) for p in (False, True)
    )
    np.testing.assert_allclose(plain_.sum(), shifts.sum(), rtol=1e-4)
    assert np.abs(plain_ - shifts).max() > 0.01


@pytest.mark.parametrize("name", mostly_slow(["tiny", "resnet", "lite"], ["tiny"]))
def test_layers(name):
    """The image has the relevance of `rsp`; the feature layer 2 for the target, 1 against it."""
    with enable_x64(True):
        f, x, target = case(name)
        found = jax.device_get(jax.jit(jaxattr.rsp_details(f))(x, target))
        a = np.asarray(jax.jit(jaxattr.rsp(f))(x, target))
    assert relative_error(found.attribution, a) < 1e-12
    assert a.min() < 0 < a.max()
    top = next(iter(found.layers.values())).reshape(3, -1)
    against = np.minimum(top, 0).sum(1)
    np.testing.assert_allclose(np.maximum(top, 0).sum(1), np.where(against < 0, 2, 1), rtol=1e-9)
    np.testing.assert_allclose(against[against < 0], -1, rtol=1e-9)


def two_objects(x):
    """Classify by two templates: bright and dark in the first channel, red or blue besides."""
    with jax.named_scope("features"):
        w = jnp.zeros((3, 3, 2, 2)).at[:, :, 0, 0].set(1 / 9).at[:, :, 1, 1].set(1 / 9)
        x = lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x - 0.1)
    return x.mean((1, 2)) @ jnp.eye(2, 3)


def test_two_objects_are_told_apart():
    """The target's is positive, the hostile one's negative, whichever is the target."""
    x = jnp.zeros((1, 12, 20, 2)).at[0, 3:9, 2:8, 0].set(1).at[0, 3:9, 12:18, 1].set(1)
    x = jnp.concatenate([x, x])
    for method in (jaxattr.rsp, jaxattr.contrastive_rsp):
        attribute = jax.jit(method(two_objects, layer="features"))
        a = np.asarray(attribute(x, jnp.array([0, 1]))).sum(-1)
        if method is jaxattr.rsp:
            left, right = a[:, :, :10].sum((1, 2)), a[:, :, 10:].sum((1, 2))
            np.testing.assert_array_equal(np.sign(left), [1, -1])
            np.testing.assert_array_equal(np.sign(right), [-1, 1])
        assert (a[0, 4:8, 3:7] > 0).all()
        assert (a[1, 4:8, 13:17] > 0).all()


def test_hostile_classes():
    """By default the runner-up; -1 is none; with none of them nothing is negative at the start."""
    with enable_x64(True):
        f, x, target = case("tiny")
        logits = np.array(jax.jit(f)(x))
        logits[np.arange(3), np.asarray(target)] = -np.inf
        second = jnp.asarray(logits.argmax(1))[:, None]
        explain = jax.jit(lambda x, t, h: jaxattr.rsp_details(f, hostile=h)(x, t))
        a = jax.jit(jaxattr.rsp(f))(x, target)
        same = explain(x, target, jnp.concatenate([second, -jnp.ones_like(second)], 1))
        none = explain(x, target, -jnp.ones((3, 2), second.dtype))
        assert relative_error(same.attribution, a) < 1e-12
        top = np.asarray(next(iter(none.layers.values())))
    assert top.min() == 0
    np.testing.assert_allclose(top.reshape(3, -1).sum(1), 1, rtol=1e-9)


def test_bad_hostile_classes():
    net, params, x, target = load("tiny")
    f = plain(net, params)
    others = (target + 1) % 6
    for hostile, message in [
        (others, r"hostile has shape \(3,\)"),
        (others[:2, None], r"hostile has shape \(2, 1\)"),
        (others[:, None].astype(float), "dtype float32"),
        (others[:, None].at[1, 0].set(6), r"hostile\[1, 0\] is 6; the classes are 0 to 5"),
        (others[:, None].at[2, 0].set(-2), r"hostile\[2, 0\] is -2"),
        (others[:, None].at[1, 0].set(target[1]), r"hostile\[1, 0\] is \d, the target itself"),
    ]:
        with pytest.raises(ValueError, match=message):
            jaxattr.rsp(f, hostile=hostile)(x, target)
    wrong = others[:, None].at[1, 0].set(6)
    a = jax.jit(lambda x, t, h: jaxattr.rsp(f, hostile=h)(x, t))(x, target, wrong)
    np.testing.assert_array_equal(jnp.isnan(a).all((1, 2, 3)), [False, True, False])


@pytest.mark.slow
def test_every_spelling_of_relu():
    net, params, x, target = load("tiny")
    spelled = [plain(net, params, relu=RELUS[r]) for r in ("jax.nn.relu", *OTHERS)]
    first, *others = (jax.jit(jaxattr.rsp(f))(x, target) for f in spelled)
    for other in others:
        assert relative_error(other, first) < 1e-4


def test_what_has_no_rule_is_refused():
    """Below the feature layer only; above it any gradient will do, but for the contrast."""
    w = jnp.ones((3, 3))

    def f(x):
        with jax.named_scope("features"):
            x = jax.nn.relu(x @ w)
        return jax.nn.softmax(x.mean((1, 2)))

    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    assert jax.eval_shape(jaxattr.rsp(f, layer="features"), x, target).shape == x.shape
    with pytest.raises(jaxattr.UnsupportedOperation, match="logits rather than probabilities"):
        jax.eval_shape(jaxattr.contrastive_rsp(f, layer="features"), x, target)
    multiplied = lambda x: f(jnp.cumprod(x, 1))
    with pytest.raises(jaxattr.UnsupportedOperation, match="`cumprod`"):
        jax.eval_shape(jaxattr.rsp(multiplied, layer="features"), x, target)


@pytest.mark.parametrize("method", [jaxattr.rsp, jaxattr.contrastive_rsp])
def test_an_error_behind_the_layer_names_the_line(method):
    """A function of a library, and read twice: the line is still that of the call."""

    def f(x):
        z = jax.nn.relu(
            jax.lax.conv(x.transpose(0, 3, 1, 2), jnp.ones((2, 3, 3, 3)), (1, 1), "SAME")
        )
        z = jnp.cumprod(z.transpose(0, 2, 3, 1), -1)
        return jax.nn.relu(z @ jnp.ones((2, 2))).mean((1, 2))

    with pytest.raises(jaxattr.UnsupportedOperation, match=r"cumprod.* at \S*test_rsp\.py:\d+ "):
        method(f)(jnp.ones((1, 4, 4, 3)), jnp.array([0]))
