"""Every spelling against XLA's own: values, derivatives, transformations, platforms."""

import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.lowering import by_taps, lower

NHWC = ("NHWC", "HWIO", "NHWC")


def spelled(f, *args):
    """Return the spelling of the last equation of `f`."""
    eqn = jax.make_jaxpr(f)(*args).jaxpr.eqns[-1]
    return lower(eqn.primitive.name, eqn.params, *(v.aval for v in eqn.invars))


def derivatives(f, *args, key=0):
    """Return `f(*args)` and its vector-Jacobian products to all of them."""
    y, vjp = jax.vjp(f, *args)
    return y, vjp(normal(key, *y.shape).astype(y.dtype))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def agree(got, expected, tolerance=1e-12):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def conv(*, strides=1, padding="SAME", groups=1, dimensions=NHWC, **settings):
    def f(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            (strides,) * (x.ndim - 2) if isinstance(strides, int) else strides,
            padding,
            dimension_numbers=dimensions,
            feature_group_count=groups,
            **settings,
        )

    return f


def pool(kind, size, strides, padding="SAME", **settings):
    start, op = {"max": (-np.inf, lax.max), "sum": (0.0, lax.add)}[kind]
    return lambda x: lax.reduce_window(
        x, np.asarray(start, x.dtype), op, size, strides, padding, **settings
    )


def random_convolution(seed):
    """Draw a convolution of any rank, layout, stride, padding, dilation and grouping."""
    draw = np.random.default_rng(seed)
    rank = int(draw.choice([1, 2, 2, 2, 3]))
    pick = lambda *choices: tuple(int(draw.choice(choices)) for _ in range(rank))
    kind = ("dense", "depthwise", "grouped", "pointwise", "patches")[seed % 5]
    groups = {"depthwise": 3, "grouped": 2}.get(kind, 1)
    inputs, outputs = {"depthwise": (3, 3 * int(draw.integers(1, 3)))}.get(kind, (4, 6))
    kernel = {"pointwise": (1,) * rank, "patches": pick(1, 2)}.get(kind, pick(1, 2, 3, 4))
    strides = pick(2, 3) if kind == "patches" else pick(1, 1, 2, 3)
    pads = (-1, 0, 1, 2)
    spatial = "DHW"[-rank:]
    layouts = ["".join(draw.permutation(list(c + spatial))) for c in ("NC", "IO", "NC")]
    sizes = dict(zip(spatial, pick(7, 8, 9), strict=True)) | {"N": 2, "C": inputs}
    taps = dict(zip(spatial, kernel, strict=True)) | {"I": inputs // groups, "O": outputs}
    x = normal(seed, *(sizes[c] for c in layouts[0]))
    w = normal(seed + 1, *(taps[c] for c in layouts[1]))
    f = conv(
        strides=strides,
        padding=list(zip(pick(*pads), pick(*pads), strict=True)),
        groups=groups,
        dimensions=tuple(layouts),
        lhs_dilation=pick(1, 1, 1, 2) if draw.random() < 0.3 else None,
        rhs_dilation=pick(1, 1, 2),
    )
    return f, x, w


@pytest.mark.parametrize("seed", mostly_slow(range(20), range(5)))
def test_convolutions_and_their_derivatives_are_xlas(seed):
    with enable_x64(True):
        f, x, w = random_convolution(seed)
        g = spelled(f, x, w)
        run = lambda f: jax.jit(lambda x, w: derivatives(f, x, w))(x, w)
        agree(run(g), run(f))


def test_a_kernel_larger_than_the_image_is_no_convolution():
    f, x, w = conv(), normal(0, 3, 2, 2, 4), normal(1, 3, 3, 4, 5)
    run = jax.jit(lambda x, w: derivatives(spelled(f, x, w), x, w)).lower(x, w).compile()
    assert "convolution(" not in run.as_text()
    agree(run(x, w), derivatives(f, x, w), 1e-6)


@pytest.mark.parametrize("seed", mostly_slow(range(8), range(3)))
@pytest.mark.parametrize("kind", ["max", "sum"])
def test_pools_and_their_derivatives_are_xlas_ties_included(kind, seed):
    with enable_x64(True):
        draw = np.random.default_rng(seed)
        pick = lambda *choices: tuple(int(draw.choice(choices)) for _ in range(4))
        size = pick(1, 2, 3)
        padding = [(int(draw.integers(k)), int(draw.integers(k))) for k in size]
        f = pool(kind, size, pick(1, 2, 3), padding)
        x = jnp.round(normal(seed, *pick(5, 6, 7)))  # few values, many ties
        g = spelled(f, x)
        run = lambda f: jax.jit(lambda x: derivatives(f, x))(x)
        agree(run(g), run(f))


def test_the_first_of_equal_maxima_in_row_major_order_takes_the_gradient():
    x = jnp.zeros((1, 4, 4, 1))
    g = spelled(pool("max", (1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)]), x)
    expected = np.zeros((4, 4))
    expected[0, 0] = expected[0, 1] = expected[1, 0] = expected[1, 1] = 1
    np.testing.assert_array_equal(jax.grad(lambda x: g(x).sum())(x)[0, :, :, 0], expected)


def test_dilated_pools_have_the_values_of_xla():
    x = normal(0, 2, 9, 9, 3)
    for kind in ("max", "sum"):
        f = pool(kind, (1, 3, 2, 1), (1, 2, 1, 1), "VALID", window_dilation=(1, 2, 3, 1))
        agree(spelled(f, x)(x), f(x), 1e-6)


LAYERS = {
    "dense": (conv(strides=2), (2, 7, 6, 3), (3, 3, 3, 4)),
    "pointwise": (conv(strides=2), (2, 7, 6, 3), (1, 1, 3, 4)),
    "depthwise": (conv(strides=2, groups=3), (2, 7, 6, 3), (3, 3, 1, 3)),
    "grouped": (conv(groups=2), (2, 7, 6, 4), (3, 3, 2, 4)),
    "channels first": (
        conv(groups=3, dimensions=("NCHW", "OIHW", "NCHW")),
        (2, 3, 7, 6),
        (3, 1, 3, 3),
    ),
    "max-pool": (pool("max", (1, 3, 3, 1), (1, 2, 2, 1)), (2, 7, 6, 3)),
    "sum-pool": (pool("sum", (1, 3, 3, 1), (1, 2, 2, 1)), (2, 7, 6, 3)),
}


@pytest.fixture(params=mostly_slow(LAYERS, ["dense", "grouped", "max-pool", "sum-pool"]))
def layer(request):
    f, *shapes = LAYERS[request.param]
    with enable_x64(True):
        args = tuple(normal(i, *s) for i, s in enumerate(shapes))
        yield f, spelled(f, *args), args


def test_second_derivatives_are_xlas(layer):
    f, g, args = layer

    def twice(f):
        def energy(*args):
            y, bars = derivatives(f, *args)
            return (y**3).sum() + sum((b**3).sum() for b in bars)

        return jax.jit(jax.grad(energy, range(len(args))))(*args)

    agree(twice(g), twice(f))


def test_forward_mode_is_xlas(layer):
    """Alone, and over reverse mode, as Hessian-vector products are made."""
    f, g, args = layer

    @partial(jax.jit, static_argnums=0)
    def run(f, args):
        energy = lambda *args: (f(*args) ** 3).sum()
        gradient = jax.grad(energy, range(len(args)))
        return [jax.jvp(f, args, jax.tree.map(jnp.sin, args)) for f in (f, gradient)]

    agree(run(g, args), run(f, args))


def test_transformations_give_what_xlas_own_gives(layer):
    f, g, args = layer
    batch = jax.tree.map(lambda a: jnp.stack([a, a[::-1], 2 * a]), args)

    @partial(jax.jit, static_argnums=0)
    def run(f, args, batch):
        vjps = partial(derivatives, f)
        return (
            jax.vmap(vjps)(*batch),
            jax.vmap(lambda a: vjps(a, *args[1:]))(batch[0]),
            lax.scan(lambda carry, a: (carry, vjps(*a)), 0, batch)[1],
            derivatives(jax.checkpoint(lambda *a: jnp.sin(f(*a))), *args),
        )

    agree(run(g, args, batch), run(f, args, batch))


def test_eager_is_jit(layer):
    _, g, args = layer
    agree(derivatives(g, *args), jax.jit(lambda *a: derivatives(g, *a))(*args))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    mostly_slow(
        [("float32", 1e-6), ("bfloat16", 2**-7), ("float16", 2**-10)], [("bfloat16", 2**-7)]
    ),
)
@pytest.mark.parametrize("name", LAYERS)
def test_short_floats_keep_their_dtype_and_precision(name, dtype, tolerance):
    f, *shapes = LAYERS[name]
    args = tuple(normal(i, *s).astype(dtype) for i, s in enumerate(shapes))
    run = lambda f: jax.jit(lambda *a: derivatives(f, *a))(*args)
    agree(run(spelled(f, *args)), run(f), tolerance)


def test_a_kernel_that_is_not_differentiated_costs_nothing(layer):
    _, g, args = layer
    choices = lambda f: str(jax.make_jaxpr(f)(*args)).count("spelled[")
    forward = choices(g)
    assert choices(jax.grad(lambda *a: g(*a).sum())) == 2 * forward
    assert choices(jax.grad(lambda *a: g(*a).sum(), range(len(args)))) == (len(args) + 1) * forward


def test_the_cpu_program_holds_no_conditional(layer):
    _, g, args = layer
    compiled = jax.jit(lambda *a: derivatives(g, *a)).lower(*args).compile().as_text()
    assert " conditional(" not in compiled


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_keep_xlas_own(layer, platform):
    f, g, args = layer

    names = {"convolution", "reduce_window", "select_and_scatter", "optimization_barrier", "pad"}

    def kept(f):
        traced = jax.jit(lambda *a: derivatives(f, *a)).trace(*args)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return sorted(o for o in re.findall(r"stablehlo\.(\w+)", text) if o in names)

    assert kept(g) == kept(f)


def test_what_has_no_better_spelling_is_left_alone():
    x = jnp.ones((2, 6, 6, 4))
    w = jnp.ones((3, 3, 4, 4))
    wide = conv(preferred_element_type=jnp.float64)
    halves = lambda x, w: lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2
    )
    dilated = pool("sum", (1, 2, 2, 1), (1, 1, 1, 1), base_dilation=(1, 2, 2, 1))
    assert spelled(lambda x: x @ x.T, x[0, 0]) is None
    assert spelled(halves, x, w) is None
    assert spelled(conv(), x.astype(int), w.astype(int)) is None
    assert spelled(conv(padding="VALID"), x[:, :2], w) is None  # an empty result
    assert spelled(dilated, x) is None
    assert spelled(pool("max", (1, 12, 12, 1), (1, 1, 1, 1)), x) is None  # too many taps
    with enable_x64(True):
        assert spelled(wide, x, w) is None


@pytest.mark.parametrize("size", mostly_slow([8, 9], [8]))
def test_pools_inside_a_large_fusion(size):
    """Of equal arrays put side by side XLA's CPU backend has read some from the wrong place."""
    first, last = jax.random.split(jax.random.key(0))
    kernel, weights = jax.random.normal(first, (3, 3, 3, 8)), jax.random.normal(last, (128, 5))

    def f(x):
        a = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        window = (1, 2, 2, 1)
        a = lax.reduce_window(jnp.tanh(a + 0.1), 0.0, lax.add, window, window, "VALID") / 4
        return a.reshape(len(x), -1) @ weights

    x, target = jax.random.normal(jax.random.key(1), (2, size, size, 3)), jnp.array([0, 1])
    attribute = jaxattr.excitation_backprop(f)
    compiled = jax.jit(attribute)(x, target)
    np.testing.assert_allclose(compiled.sum((1, 2, 3)), 1, rtol=1e-4)
    np.testing.assert_allclose(compiled, attribute(x, target), rtol=1e-3, atol=1e-5)


SHARDED = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp, numpy as np, jaxattr
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

keys = jax.random.split(jax.random.key(0), 4)
shapes = (3, 3, 3, 8), (3, 3, int(sys.argv[1]), 8)
kernels = [jax.random.normal(key, shape) / 4 for key, shape in zip(keys, shapes)]
head = jax.random.normal(keys[2], (8, 5))

def f(x):
    for kernel in kernels:
        groups = x.shape[-1] // kernel.shape[2]
        x = jax.nn.relu(lax.conv_general_dilated(
            x, kernel, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        ))
    return x.mean((1, 2)) @ head

x, target = jax.random.normal(keys[3], (8, 9, 8, 3)), jnp.arange(8) % 5
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
explain = jax.jit(jaxattr.rsp(f))
whole = explain(x, target)
compiled = explain.lower(*(jax.device_put(a, sharding) for a in (x, target))).compile()
parts = compiled(*(jax.device_put(a, sharding) for a in (x, target)))
np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
assert "all-gather" not in compiled.as_text() or sys.argv[1] == "2"
"""


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [8, 2])
def test_kernels_of_their_own_under_a_sharded_batch(inputs):
    """Each device's images have their own weights; without groups nothing is gathered."""
    subprocess.run([sys.executable, "-c", SHARDED, str(inputs)], check=True)


@pytest.mark.parametrize("groups", mostly_slow([1, 2, 8], [2]))
@pytest.mark.parametrize("settings", [{}, {"stride": (2, 3)}, {"dilation": (2, 1)}])
def test_a_convolution_by_taps(groups, settings):
    """It is the convolution, with both derivatives, for a kernel of its own for every image."""
    strides, dilation = settings.get("stride", (1, 1)), settings.get("dilation", (1, 1))
    with enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (2, 1, 9, 8, 8), "float64")
        w = jax.random.normal(keys[1], (2, 3, 2, 8 // groups, 8), "float64")
        own = partial(
            lax.conv_general_dilated,
            window_strides=strides,
            padding=((1, 0), (2, 1)),
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        eqn = jax.make_jaxpr(own)(x[0], w[0]).jaxpr.eqns[-1]
        taps = by_taps(eqn.params, x[0], w[0])
        c = jax.random.normal(keys[2], jax.eval_shape(jax.vmap(own), x, w).shape, "float64")
        both = jax.jit(
            lambda f, *args: (lambda y, pull: (y, *pull(c)))(*jax.vjp(f, *args)), static_argnums=0
        )
        for a, b in zip(both(jax.vmap(taps), x, w), both(jax.vmap(own), x, w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
