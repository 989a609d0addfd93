"""What every method does with functions that are odd: NaN logits, one batch size, probabilities."""

import copy
import pickle
import re
import warnings
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64
from speed import mostly_slow
from test_laws import METHODS

import jaxattr
from jaxattr.methods.conservation import conservation
from jaxattr.rules import gates

KEYS = jax.random.split(jax.random.key(0), 4)
KERNEL = jax.random.normal(KEYS[0], (3, 3, 3, 8))
HEAD = jax.random.normal(KEYS[1], (8, 5))
X, TARGET = jax.random.normal(KEYS[2], (2, 8, 8, 3)), jnp.array([0, 1])


def features(x):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=dimensions)


def net(x):
    return jax.nn.relu(features(x)).mean((1, 2)) @ HEAD


def broken(x):
    """Give NaN for images that begin with a number below -5, behind a ReLU that closes on it."""
    bad = jnp.where(jax.lax.stop_gradient(x[:, :1, :1, :1]) < -5, jnp.nan, 0)
    return jax.nn.relu(jax.nn.relu(features(x) + bad).mean((1, 2)) @ HEAD) @ HEAD.T @ HEAD


@pytest.mark.parametrize(
    "method", mostly_slow(METHODS, ["saliency", "guided_backprop", "rsp", "grad_cam"])
)
def test_logits_that_are_no_numbers(method):
    """The map is NaN, not zero, for the image that has them alone."""
    explain = jax.jit(lambda x: METHODS[method](broken)(x, TARGET, key=jax.random.key(1)))
    maps = explain(X.at[1, 0, 0, 0].set(-50))
    assert jnp.isfinite(maps[0]).all()
    assert jnp.isnan(maps[1]).all()


@pytest.mark.parametrize("wrap", [jnp.add, lambda a, b: jnp.concatenate([a, b], 1)])
def test_a_function_of_one_batch_size(wrap):
    """Something else for each image, closed over: an error, and no image explained by another's."""
    extra = jax.random.normal(KEYS[3], (2, 5))
    f = lambda x: wrap(net(x), extra)
    jax.eval_shape(jaxattr.saliency(f), X, TARGET)
    names = ["rap", "rsp", "contrastive_rsp", "lpr", "score_cam", "occlusion", "rise"]
    for explain in (*(METHODS[name](f) for name in names), conservation(f)):
        with pytest.raises(ValueError, match="takes the given number of images, but not"):
            explain(X, TARGET, key=jax.random.key(0))


def test_no_target():
    with pytest.raises(ValueError, match=r"target is None: pass one class.*argmax"):
        jaxattr.saliency(net)(X, None)


def test_pickled_and_copied():
    """Attributions, and what their siblings return, do what they did, if their function pickles."""
    details = [f for name, f in vars(jaxattr).items() if name.endswith("_details")]
    for method in (*METHODS.values(), *details):
        pickle.loads(pickle.dumps(method(net)))
    smooth = jaxattr.smoothgrad(jaxattr.saliency(net), samples=2)
    again = [pickle.loads(pickle.dumps(smooth)), copy.deepcopy(smooth)]
    maps = jax.jit(lambda x: [f(x, TARGET, key=KEYS[0]) for f in (smooth, *again)])(X)
    np.testing.assert_array_equal(maps[1:], maps[:1] * 2)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(jaxattr.saliency(lambda x: net(x)))


def test_forward_mode():
    """Maps have derivatives of both modes; a function under rules has reverse mode alone."""
    f = lambda x: jax.nn.silu(net(x)) ** 2
    own = lambda x: jax.grad(lambda x: f(x)[jnp.arange(2), TARGET].sum())(x)
    maps = [
        jax.jit(lambda x, explain=explain: jax.jvp(explain, (x,), (jnp.cos(x),))[1])(X)
        for explain in (lambda x: jaxattr.saliency(f)(x, TARGET), own)
    ]
    assert np.abs(maps[1]).max() > 0
    np.testing.assert_allclose(*maps, rtol=1e-4, atol=1e-5)
    jax.eval_shape(lambda x: jax.jvp(lambda x: jaxattr.lrp(net)(x, TARGET), (x,), (x,)), X)
    guided = jaxattr.with_rules(net, {"activation": gates.guided})
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(guided, (X,), (X,))


HEADS = {
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "by hand": lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True),
    "logistic by hand": lambda z: 1 / (1 + jnp.exp(-z)),
}


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_are_no_logits(head):
    """Rules made for logits say so, and where."""
    f = lambda x: HEADS[head](net(x))
    for method in (jaxattr.guided_backprop, jaxattr.deeplift, jaxattr.fullgrad, jaxattr.tr_gbp):
        with pytest.warns(UserWarning, match=r"in probabilities, by .* at .*py:\d+") as found:
            jax.eval_shape(method(f), X, TARGET)
        assert re.search(r"test_contract|nn", str(found[0].message))
    jax.eval_shape(jaxattr.saliency(f), X, TARGET)


@pytest.mark.filterwarnings("default")
def test_the_warning_comes_once():
    explain = jaxattr.guided_backprop(lambda x: jax.nn.sigmoid(net(x)))
    with warnings.catch_warnings(record=True) as found:
        for _ in range(3):
            jax.eval_shape(explain, X, TARGET)
    assert len(found) == 1
    jaxattr.guided_backprop(lambda x: jax.nn.silu(net(x)))(X, TARGET)


def conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    ("method", "dtype"),
    mostly_slow(
        product(["rsp", "rap", "contrastive_rsp"], ["float64", "float32"]),
        [("rap", "float32")],
    ),
)
def test_jit_and_eager_where_rounding_decides(method, dtype):
    """On constant images and narrow networks sums cancel: what is left of them decides nothing."""
    with enable_x64(dtype == "float64"):

        def explain(weights, x):
            def f(x):
                z = jax.nn.relu(conv(x, weights[0]))
                return jax.nn.relu(conv(z, weights[1])).mean((1, 2)) @ weights[2]

            return METHODS[method](f)(x, TARGET)

        compiled = jax.jit(explain)
        for seed in range(3):
            keys = jax.random.split(jax.random.key(seed), 4)
            shapes = [(3, 3, 3, 2), (3, 3, 2, 2), (2, 5)]
            weights = [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=False)]
            flat = jnp.full((2, 6, 6, 3), 0.7, dtype)
            for x in (jax.random.normal(keys[3], flat.shape, dtype), flat):
                eager = np.asarray(explain(weights, x))
                atol = {"float64": 1e-10, "float32": 1e-5}[dtype] * (1e-9 + np.abs(eager).max())
                np.testing.assert_allclose(compiled(weights, x), eager, rtol=0, atol=atol)
