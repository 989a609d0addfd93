"""Laws that every attribution method obeys, on every kind of network."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from frameworks import FRAMEWORKS
from nets import RELUS, load, plain
from peers import relative_error
from precision import enable_x64
from speed import ALIKE, mostly_slow

import jaxattr
from jaxattr import catalogue
from jaxattr.rules.composites import epsilon_gamma_box, epsilon_plus


def quarters(image):
    """Cut an image into four."""
    rows, columns = (np.arange(n) < n // 2 for n in image.shape[:2])
    top, left = np.broadcast_arrays(rows[:, None], columns)
    return np.stack([top & left, top & ~left, ~top & left, ~top & ~left])


SMALL = {
    "integrated_gradients": {"steps": 3, "chunk": 2},
    "blur_integrated_gradients": {"max_sigma": 2, "steps": 3, "chunk": 2},
    "guided_integrated_gradients": {"steps": 3, "max_dist": 0.3},
    "xrai": {"steps": 2, "segments": quarters, "min_pixels": 4},
    "deeplift": {"baseline": 0.1},
    "score_cam": {"chunk": 7},
    "ablation_cam": {"chunk": 7},
    "cameras": {"scales": (1, 1.06)},  # a size that flattens to the same
    "occlusion": {"window": (3, 4), "chunk": 3},
    "feature_ablation": {"cells": 2, "chunk": 3},
    "gradient_shap": {"samples": 3},
    "hsic_attribution": {"cells": 2, "samples": 6},
    "kernel_shap": {"cells": 2, "samples": 6},
    "lime": {"cells": 2, "samples": 6},
    "shapley_sampling": {"cells": 2, "samples": 2},
    "sobol_attribution": {"cells": 2, "samples": 2},
    "rise": {"samples": 5, "chunk": 2},
    "meaningful_perturbation": {"steps": 2},
    "extremal_perturbation": {"steps": 2, "areas": (0.1, 0.3), "spacing": 3, "sigma": 2},
    "dmbp": {"steps": 2},
    "lpr": {"steps": 2},
    "smoothgrad": {"samples": 3},
    "smoothgrad_squared": {"samples": 3},
    "vargrad": {"samples": 3, "chunk": 2},
}
"""Options that make a method quick on small networks."""


def quick(method):
    options = SMALL.get(method.name, {})
    if method.facts.wraps:
        return lambda f: method.function(jaxattr.guided_backprop(f), **options)
    return partial(method.function, **options)


METHODS = {name: quick(method) for name, method in catalogue.METHODS.items()}
KEY = jax.random.key(0)
NHWC = ("NHWC", "HWIO", "NHWC")

DISTINCT = [name for name in METHODS if name not in ALIKE]
NETS = [("tiny", name) for name in METHODS]
NETS += [(net, name) for net in ("vgg", "lite") for name in DISTINCT]

every_method = pytest.mark.parametrize("method", mostly_slow(METHODS, DISTINCT))


def key_of(method):
    return KEY if catalogue.METHODS[method].facts.random else None


def explained(name, method, dtype="float32"):
    net, params, x, target = load(name, dtype)
    return METHODS[method](plain(net, params)), x, target


@cache
def compiled(name, method, dtype):
    """Return an attribution, which tests share; it compiles once for a kind of arguments."""
    attribute, *arguments = explained(name, method, dtype)
    return jax.jit(attribute), *map(np.asarray, arguments)


@pytest.mark.parametrize(
    ("name", "method"), mostly_slow(NETS, [("tiny", name) for name in DISTINCT])
)
def test_shape_dtype_and_batch(name, method):
    """Maps have the promised shape and dtype, and no image sees what stands beside it."""
    with enable_x64(True):
        attribute, x, target = compiled(name, method, "float64")
        maps = attribute(x, target, key=key_of(method))
        for i in range(len(x)):
            copies = np.full(len(x), i)
            beside_copies = attribute(x[copies], target[copies], key=key_of(method))
            np.testing.assert_allclose(beside_copies, maps[copies], rtol=1e-9, atol=1e-12)
    assert maps.shape == (*x.shape[:3], 1 if catalogue.METHODS[method].facts.spatial else 3)
    assert maps.dtype == "float64"
    assert np.abs(maps).max() > 0


@pytest.mark.parametrize(
    ("name", "method"), mostly_slow(NETS, [("tiny", name) for name in ("lrp", "rise", "dmbp")])
)
def test_a_batch_is_its_images_one_by_one(name, method):
    with enable_x64(True):
        attribute, x, target = compiled(name, method, "float64")
        maps = attribute(x, target, key=key_of(method))
        images = [(x[i : i + 1], target[i : i + 1]) for i in range(len(x))]
        single = [attribute(*image, key=key_of(method)) for image in images]
    np.testing.assert_allclose(maps, np.concatenate(single), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", mostly_slow(DISTINCT, ["lrp"]))
def test_jit_and_eager(method):
    with enable_x64(True):
        makers = compiled, explained
        attributes = [make("tiny", method, "float64") for make in makers]
        key = key_of(method)
        jitted, eager = (a(x[:1], target[:1], key=key) for a, x, target in attributes)
    np.testing.assert_allclose(jitted, eager, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "method",
    mostly_slow(
        ["integrated_gradients", "guided_grad_cam", "smoothgrad_squared", "lrp", "dmbp", "lpr"],
        ["lrp"],
    ),
)
@pytest.mark.parametrize("framework", mostly_slow(FRAMEWORKS, ["nnx", "equinox"]))
def test_every_framework(framework, method):
    """The same network in Flax, Equinox and Haiku gets the same map."""
    net, params, x, target = load("resnet")
    maps = [
        jax.jit(METHODS[method](build(net, params)))(x, target, key=KEY)
        for build in (plain, FRAMEWORKS[framework])
    ]
    assert relative_error(maps[1], maps[0]) < 1e-4


@pytest.mark.parametrize(
    "method",
    mostly_slow(["guided_backprop", "deconvnet", "grad_cam", "smoothgrad", "lrp"], ["lrp"]),
)
def test_every_spelling_of_relu(method):
    """Implementation invariance: how a ReLU is written does not show."""
    net, params, x, target = load("tiny")
    maps = [
        jax.jit(METHODS[method](plain(net, params, relu=relu)))(x, target, key=KEY)
        for relu in RELUS.values()
    ]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-5, atol=1e-6 * jnp.abs(maps[0]).max())


@pytest.mark.parametrize("method", mostly_slow(DISTINCT, ["saliency", "lrp", "rise", "dmbp"]))
def test_bfloat16_stays(method):
    attribute, x, target = explained("lite", method, jnp.bfloat16)
    assert jax.eval_shape(attribute, x, target, key=KEY).dtype == jnp.bfloat16


@every_method
def test_the_key(method):
    """Random methods need it, and repeat themselves with it; the others, above, do without."""
    with enable_x64(True):
        attribute, x, target = compiled("tiny", method, "float64")
        first, again = (attribute(x, target, key=key_of(method)) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        if catalogue.METHODS[method].facts.random:
            assert relative_error(attribute(x, target, key=jax.random.key(1)), first) > 1e-3
            with pytest.raises(ValueError, match=r"random numbers: pass key=jax\.random\.key"):
                attribute(x, target)


@every_method
def test_bad_input(method):
    attribute, x, target = explained("tiny", method)
    attribute = partial(attribute, key=KEY)
    for wrong, message in [
        ((x[0], target), r"shape \(8, 10, 3\).*x\[None\]"),
        ((x.astype(int), target), "dtype int32"),
        ((x.at[1].set(jnp.nan), target), r"x\[1\] holds a value that is not finite"),
        ((x, target[:2]), r"target has shape \(2,\)"),
        ((x, target.astype(float)), "dtype float32"),
        ((x, target.at[2].set(6)), r"target\[2\] is 6; the classes are 0 to 5"),
        ((x, target.at[0].set(-1)), r"target\[0\] is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            attribute(*wrong)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (partial(jaxattr.integrated_gradients, baseline=jnp.ones(5)), r"baseline has shape \(5,\)"),
        (partial(jaxattr.guided_integrated_gradients, baseline=jnp.ones(5)), "not broadcast to"),
        (partial(jaxattr.deeplift, baseline=jnp.ones((1, 2, 8, 10, 3))), "not broadcast to"),
        (partial(jaxattr.occlusion, baseline=jnp.ones((4, 1, 1, 1))), "not broadcast to"),
        (partial(jaxattr.occlusion, window=(1, 2, 3)), r"window is \(1, 2, 3\)"),
        (partial(jaxattr.meaningful_perturbation, init=jnp.ones(7)), r"init has shape \(7,\)"),
        (partial(jaxattr.extremal_perturbation, init=jnp.ones(7)), r"init has shape \(7,\)"),
        (partial(jaxattr.dmbp, init=lambda *_: ()), "init has 0 arrays; the function has 3 act"),
        (partial(jaxattr.lrp, composite=epsilon_plus), "expected a Composite, such as the one"),
        (
            partial(jaxattr.lrp, composite=epsilon_gamma_box(jnp.ones(7), 1.0)),
            r"low has shape \(7,\), which does not broadcast to \(3, 8, 10, 3\)",
        ),
    ],
)
def test_bad_options(method, message):
    net, params, x, target = load("tiny")
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(method(plain(net, params)), x, target, key=KEY)


@every_method
def test_a_class_out_of_range_under_jit(method):
    """Where values are unknown it gives NaN, never another class's map; neighbours are spared."""
    with enable_x64(True):
        attribute, x, target = compiled("tiny", method, "float64")
        right = attribute(x, target, key=key_of(method))
        maps = attribute(x, np.array([6, target[1], -1]), key=key_of(method))
        assert np.isnan(maps[np.array([0, 2])]).all()
    np.testing.assert_allclose(maps[1], right[1], rtol=1e-6)


@every_method
def test_logits_of_the_wrong_shape(method):
    net, params, x, target = load("tiny")
    f = lambda x: plain(net, params)(x).sum(-1)
    with pytest.raises(
        ValueError, match=r"returned shape \(3,\).*expected logits of shape \(3, cl"
    ):
        METHODS[method](f)(x, target, key=KEY)


@pytest.mark.parametrize("method", mostly_slow(DISTINCT, ["lrp", "dmbp"]))
def test_differentiable_in_the_weights(method):
    """Maps can be trained: gradients reach the weights."""
    net, params, x, target = load("tiny")
    # the square root of Adam has no derivative where a gradient is zero
    make = METHODS[method]
    make = partial(make, optimizer=optax.sgd(0.1)) if method == "lpr" else make

    def loss(params):
        return (make(plain(net, params))(x, target, key=KEY) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(jnp.isfinite(g).all() for g in gradient.values())
    assert jnp.abs(gradient["conv1.weight"]).max() > 0


def test_guided_methods_need_an_activation():
    f = lambda x: x.mean((1, 2)) @ jnp.ones((3, 2))
    x, target = jnp.ones((1, 4, 4, 3)), jnp.array([0])
    for method in (jaxattr.guided_backprop, jaxattr.deconvnet, jaxattr.guided_grad_cam):
        with pytest.raises(ValueError, match="no activation"):
            method(f)(x, target)


@pytest.mark.parametrize("count", mostly_slow([4, 40], [40]))
@pytest.mark.parametrize(
    ("method", "traces"),
    [
        (lambda n: jaxattr.guided_backprop, 2),
        (lambda n: partial(jaxattr.integrated_gradients, steps=n), 3),
        (lambda n: lambda f: jaxattr.smoothgrad(jaxattr.saliency(f), samples=n), 5),
        (lambda n: partial(jaxattr.dmbp, steps=n), 2),
    ],
    ids=["guided_backprop", "integrated_gradients", "smoothgrad", "dmbp"],
)
def test_the_classifier_is_traced_a_fixed_number_of_times(method, traces, count):
    """No loop over steps or samples in Python."""
    net, params, x, target = load("tiny")
    f = plain(net, params)
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(lambda x: f(x), traces)
    jax.jit(method(count)(counted))(x, target, key=KEY)


@pytest.mark.parametrize(
    "method", mostly_slow(DISTINCT, ["extremal_perturbation", "lpr", "rise", "smoothgrad"])
)
def test_strict_promotion_and_no_images(method):
    """What `jax.grad` runs under runs here: JAX's strict settings, and a batch of none."""
    w, key = jnp.ones((3, 3, 3, 4)), key_of(method)

    def f(x):
        h = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)
        h = jax.lax.reduce_window(
            jax.nn.relu(h), -jnp.inf, jax.lax.max, *[(1, 2, 2, 1)] * 2, "VALID"
        )
        return h.reshape(x.shape[0], 36) @ jnp.ones((36, 5))

    explain = lambda x, target: METHODS[method](f)(x, target, key=key)
    x, target = jnp.ones((2, 6, 6, 3)), jnp.array([0, 1])
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        shape = jax.eval_shape(explain, x, target).shape
    assert explain(x[:0], target[:0]).shape == (0, *shape[1:])
