"""Every relevance rule against its formula on a dense Jacobian, over all kinds of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.rules import lrp
from jaxattr.rules.assignment import assign
from jaxattr.rules.composites import Composite, epsilon_plus
from jaxattr.rules.contributions import affine
from jaxattr.rules.relevance import proportional
from jaxattr.tracing.transform import trace

NHWC = ("NHWC", "HWIO", "NHWC")
LOW, HIGH = -2.5, 3.0


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def conv(x, w, strides=(1, 1), padding="SAME", dimensions=NHWC, **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=dimensions, **options)


def batch_norm(y, seed=7, axis=-1):
    """Normalize as in inference; half of the scales are negative."""
    n = y.shape[axis]
    shape = [n if i == axis % y.ndim else 1 for i in range(y.ndim)]
    scale, offset, mean = (normal(seed + i, n).reshape(shape) for i in range(3))
    return (y - mean) * (scale * lax.rsqrt(jnp.abs(mean) + 0.5)) + offset


LAYERS = {
    "conv": ((2, 5, 4, 3), lambda x: conv(x, normal(1, 3, 3, 3, 4))),
    "bias": ((2, 4, 4, 2), lambda x: conv(x, normal(1, 3, 2, 2, 3)) + normal(2, 3)),
    "batch norm": ((2, 4, 4, 2), lambda x: batch_norm(conv(x, normal(1, 3, 3, 2, 4)))),
    "bias, batch norm": (
        (1, 4, 5, 2),
        lambda x: batch_norm(conv(x, normal(1, 3, 3, 2, 4), (2, 1)) + normal(2, 4)),
    ),
    "negated": ((1, 3, 3, 2), lambda x: 1 - conv(x, normal(1, 2, 2, 2, 3)) / normal(2, 3)),
    "depthwise": (
        (2, 5, 4, 3),
        lambda x: batch_norm(conv(x, normal(1, 3, 3, 1, 3), feature_group_count=3)),
    ),
    "depthwise, wider": (
        (1, 4, 4, 2),
        lambda x: batch_norm(conv(x, normal(1, 3, 3, 1, 6), (2, 2), feature_group_count=2)),
    ),
    "grouped": (
        (2, 4, 5, 4),
        lambda x: batch_norm(conv(x, normal(1, 3, 3, 2, 6), feature_group_count=2)),
    ),
    "strided": ((2, 7, 6, 2), lambda x: conv(x, normal(1, 3, 3, 2, 3), (2, 3), ((0, 1), (2, 0)))),
    "dilated": (
        (1, 7, 6, 2),
        lambda x: batch_norm(conv(x, normal(1, 3, 2, 2, 3), padding="VALID", rhs_dilation=(2, 3))),
    ),
    "transposed": (
        (2, 3, 4, 2),
        lambda x: batch_norm(lax.conv_transpose(x, normal(1, 3, 3, 2, 3), (2, 2), "SAME")),
    ),
    "1x1": ((2, 3, 3, 4), lambda x: batch_norm(conv(x, normal(1, 1, 1, 4, 3), (2, 2)))),
    "channels first": (
        (2, 3, 4, 5),
        lambda x: batch_norm(
            conv(x, normal(1, 4, 3, 3, 3), dimensions=("NCHW", "OIHW", "NCHW")), axis=1
        ),
    ),
    "one dimension": (
        (2, 7, 3),
        lambda x: batch_norm(conv(x, normal(1, 3, 3, 4), (2,), dimensions=("NWC", "WIO", "NWC"))),
    ),
    "dense": ((3, 5), lambda x: x @ normal(1, 5, 4) + normal(2, 4)),
    "dense, weight first": ((5, 3), lambda x: batch_norm(normal(1, 4, 5) @ x, axis=0)),
    "einsum": (
        (2, 3, 4, 5),
        lambda x: batch_norm(jnp.einsum("bhwc,wcd->bhd", x, normal(1, 4, 5, 3))),
    ),
    "einsum by groups": (
        (2, 3, 4),
        lambda x: batch_norm(jnp.einsum("bgc,gcd->bgd", x, normal(1, 3, 4, 2))),
    ),
    "einsum, every group scaled": (
        (2, 3, 4),
        lambda x: (
            jnp.einsum("bgc,gcd->bgd", x, normal(1, 3, 4, 2)).swapaxes(0, 1) * normal(2, 3, 1, 2)
        ),
    ),
    "reshaped on the way": (
        (1, 4, 4, 2),
        lambda x: batch_norm(
            conv(x, normal(1, 3, 3, 2, 4), (2, 2)).reshape(4, 4).T, axis=0
        ).reshape(2, 8),
    ),
    "one channel": ((2, 4, 4, 1), lambda x: batch_norm(conv(x, normal(1, 3, 3, 1, 1)))),
}


def parts(a):
    return np.maximum(a, 0), np.minimum(a, 0)


def shared(terms, rest, r, stabilizer=0.0):
    """Return what the inputs are handed and what is left, from dense terms `(outputs, inputs)`."""
    d = terms.sum(1) + rest
    d = d + np.where(d < 0, -stabilizer, stabilizer)
    share = np.divide(r, d, out=np.zeros_like(r), where=d != 0)
    return share @ terms, r - share * terms.sum(1)


def dense_gamma(w, x, b, r, gamma=0.25):
    z, (b_up, b_down) = w * x, parts(b)
    up, down = parts(z)
    positive = z.sum(1) + b > 0
    of_up, left_up = shared(z + gamma * up, b + gamma * b_up, np.where(positive, r, 0))
    of_down, left_down = shared(z + gamma * down, b + gamma * b_down, np.where(positive, 0, r))
    return of_up + of_down, left_up + left_down


def dense_alpha_beta(w, x, b, r):
    pairs = zip(parts(w * x), parts(b), (2 * r, -r), strict=True)
    (up, left_up), (down, left_down) = (shared(z, rest, share) for z, rest, share in pairs)
    return up + down, left_up + left_down


def dense_box(w, x, b, r):
    up, down = parts(w)
    return shared(w * x - LOW * up - HIGH * down, 0, r)


def dense_flat(w, x, b, r):
    return shared((w != 0) * 1.0, 0, r)


RULES = {
    "zero": (lrp.zero(), lambda w, x, b, r: shared(w * x, b, r)),
    "epsilon": (lrp.epsilon(0.3), lambda w, x, b, r: shared(w * x, b, r, 0.3)),
    "gamma": (lrp.gamma(), dense_gamma),
    "alpha-beta": (lrp.alpha_beta(), dense_alpha_beta),
    "z+": (lrp.z_plus(), lambda w, x, b, r: shared(parts(w * x)[0], parts(b)[0], r)),
    "z+, stabilised": (
        lrp.z_plus(stabilizer=0.1),
        lambda w, x, b, r: shared(parts(w * x)[0], parts(b)[0], r, 0.1),
    ),
    "z-box": (lrp.z_box(LOW, HIGH), dense_box),
    "w-square": (lrp.w_square(), lambda w, x, b, r: shared(w**2, b**2, r)),
    "flat": (lrp.flat(), dense_flat),
}


def dense(f, x):
    """Return the affine function `f` as a matrix and a vector."""
    w, b = jax.device_get(jax.jit(lambda x: (jax.jacobian(f)(x), f(jnp.zeros_like(x))))(x))
    return w.reshape(b.size, x.size), b.ravel()


def handed_down(f, given, x, r):
    """Return what each of some sets of rules makes at `x` of the relevance `r`."""

    @jax.jit
    def run(x, r):
        pulls = {k: jax.vjp(jaxattr.with_rules(f, rule), x)[1] for k, rule in given.items()}
        return {k: pull(r)[0] for k, pull in pulls.items()}

    return jax.device_get(run(x, r))


def random_convolution(seed):
    """Draw the shapes and the settings of a convolution and what follows it."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high, n=2: tuple(map(int, rng.integers(low, high + 1, n)))
    groups, inputs, outputs = draw(1, 3, 3)
    shape = (*draw(1, 2, 1), *draw(4, 7), groups * inputs)
    w = normal(seed, *draw(1, 3), inputs, groups * outputs)
    options = {
        "strides": draw(1, 3),
        "padding": tuple(zip(draw(0, 2), draw(0, 2), strict=True)),
        "lhs_dilation": draw(1, 2),
        "rhs_dilation": draw(1, 2),
        "feature_group_count": groups,
    }
    bias = normal(seed, groups * outputs)

    def f(x):
        y = conv(x, w, **options)
        return batch_norm(y + bias, seed) if seed % 2 else 1 - y * bias

    return shape, f


QUICK = ("bias, batch norm", "depthwise, wider", "dense")


@pytest.mark.parametrize("layer", mostly_slow([*LAYERS, *range(8)], QUICK))
def test_a_layer_against_its_dense_jacobian(layer):
    with enable_x64(True):
        shape, f = random_convolution(layer) if isinstance(layer, int) else LAYERS[layer]
        x = normal(11, *shape)
        x = jnp.where(normal(12, *shape) > 0.5, 0, x)
        (site,) = jaxattr.sites(f, x)
        r = normal(13, *jax.eval_shape(f, x).shape)
        w, b = dense(f, x)
        given, expected = {}, {}
        for name, (rule, formula) in RULES.items():
            args = w, np.ravel(x)
            down, _ = formula(*args, b, np.ravel(r))
            bare, rest = formula(*args, 0 * b, np.ravel(r))
            conserving = lrp.conserving(lrp.without_bias(rule))
            given |= {name: rule, f"{name}, no bias, conserving": conserving}
            more, _ = dense_flat(*args, b, rest)
            expected |= {name: down, f"{name}, no bias, conserving": bare + more}
        found = handed_down(f, {k: {"affine": affine(r)} for k, r in given.items()}, x, r)
    assert site.kind == "affine"
    for name, a in found.items():
        e = expected[name]
        np.testing.assert_allclose(
            np.ravel(a), e, rtol=0, atol=1e-9 * np.abs(e).max(), err_msg=name
        )
        if "conserving" in name:
            seeing = (w != 0).any(1)  # a strided, padded window may stand in the padding alone
            np.testing.assert_allclose(np.sum(a), np.ravel(r)[seeing].sum(), rtol=1e-8)


SUMS = {
    "sum": ((2, 3, 4, 2), lambda x: x.sum((1, 2))),
    "windows": (
        (2, 5, 4, 2),
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 3, 1), (1, 2, 1, 1), "SAME"),
    ),
    "cumulative": ((2, 5), lambda x: jnp.cumsum(x, 1)),
    "residual": ((2, 3, 4), lambda x: x[:, :2] + x[:, 1:]),
    "difference": ((2, 3, 4), lambda x: x[:, :2] - x[:, 1:]),
    "enlarging": ((1, 3, 1, 2), lambda x: jax.image.resize(x, (1, 5, 1, 2), "bilinear")),
    "shrinking": ((1, 1, 6, 2), lambda x: jax.image.resize(x, (1, 1, 4, 2), "bilinear")),
}


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize("part", [None, jnp.abs])
def test_a_sum_against_its_dense_jacobian(sums, part):
    """In proportion, and what a stabiliser or an empty sum keeps spread evenly."""
    shape, f = SUMS[sums]
    with enable_x64(True):
        x = normal(1, *shape)
        x = x.at[:, 0].set(0)
        r = normal(2, *jax.eval_shape(f, x).shape)
        w, _ = dense(f, x)
        terms = w * np.ravel(x)
        terms = terms if part is None else np.abs(terms)
        down, rest = shared(terms, 0, np.ravel(r), 0.1)
        expected = down + shared(np.abs(w), 0, rest)[0]
        rule = proportional(*[part] * (part is not None), stabilizer=0.1)
        composite = Composite(lrp.zero(), lrp.zero(), mean=rule, sum=rule)
        found = handed_down(f, {"it": assign(composite, trace(f, x).scope)}, x, r)["it"]
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sum(found), np.sum(np.asarray(r)), rtol=1e-9)


PLACINGS = {
    "padding": ((1, 2, 3, 1), lambda x: jnp.pad(x, ((0, 0), (1, 0), (2, 1), (0, 0)))),
    "concatenation": ((2, 3), lambda x: jnp.concatenate([x[:, 1:], jnp.ones((2, 1)), -x], 1)),
    "writing": ((2, 3), lambda x: jnp.zeros((2, 6)).at[:, 1:4].set(x)),
    "stacking": ((2, 3), lambda x: jnp.stack([x, x[::-1]], 1).reshape(2, 6)),
    "enlarging": ((1, 2, 3, 1), lambda x: jax.image.resize(x, (1, 5, 6, 1), "nearest")),
    "choosing": ((2, 3), lambda x: jnp.where(jnp.arange(3) > 1, x, x[::-1])),
}


@pytest.mark.parametrize("placing", PLACINGS)
def test_what_is_moved_keeps_its_relevance(placing):
    """Relevance goes back where the value came from, though the value be zero."""
    shape, f = PLACINGS[placing]
    with enable_x64(True):
        x = normal(1, *shape).at[0, 0].set(0)
        r = normal(2, *jax.eval_shape(f, x).shape)
        found = handed_down(f, {"it": assign(epsilon_plus(), trace(f, x).scope)}, x, r)["it"]
        w, _ = dense(f, x)
    np.testing.assert_allclose(np.ravel(found), np.ravel(r) @ np.abs(w), rtol=1e-12)
