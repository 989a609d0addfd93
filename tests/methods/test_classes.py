"""Classes as people write them, and models of one class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from speed import mostly_slow

import jaxattr
from jaxattr import scores

KERNEL = jax.random.normal(jax.random.key(0), (3, 3, 3, 8))
X = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))


def net(classes):
    weights = jax.random.normal(jax.random.key(2), (8, classes))

    def f(x):
        a = jax.lax.conv_general_dilated(
            x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(a).mean((1, 2)) @ weights

    return f


@pytest.mark.parametrize(
    "dtype", mostly_slow(["uint8", "int8", "int16", "uint32", "int32"], ["uint8"])
)
@pytest.mark.parametrize("method", ["saliency", "grad_cam", "lrp", "tr_gbp", "rsp", "occlusion"])
def test_every_integer_dtype(method, dtype):
    """300 classes do not fit into a byte: no class may be taken for the one 256 before it."""
    explain, target = jax.jit(getattr(jaxattr, method)(net(300))), np.array([3, 1, 4])
    maps, wide = explain(X, target.astype(dtype)), explain(X, target)
    np.testing.assert_allclose(maps, wide, rtol=1e-5, atol=1e-7)  # of two programs


def test_scores_of_narrow_dtypes():
    logits, target = jnp.arange(600.0).reshape(2, 300), np.array([3, 44], np.uint8)
    np.testing.assert_array_equal(scores.logit(logits, target), [3, 344])
    np.testing.assert_array_equal(scores.margin(logits, target), [3 - 299, 344 - 599])
    measure = jaxattr.metrics.insertion(net(300), step=16)
    ours, wide = (measure(X, t, X).score for t in (np.array([3, 1, 4], np.uint8), [3, 1, 4]))
    np.testing.assert_array_equal(ours, wide)


@pytest.mark.parametrize("wrap", mostly_slow([lambda f: f, jax.jit], [jax.jit]))
def test_one_class(wrap):
    """Without a hostile class the map is that of the target alone."""
    f, target = net(1), jnp.zeros(3, int)
    both = lambda x: jnp.concatenate([f(x), jnp.zeros_like(f(x))], 1)
    alone = wrap(jaxattr.rsp(f))(X, target)
    none = jnp.full((3, 1), -1)
    np.testing.assert_allclose(
        alone, jax.jit(jaxattr.rsp(both, hostile=none))(X, target), rtol=1e-4, atol=1e-6
    )
    assert np.abs(alone).max() > 0
    found = wrap(jaxattr.tr_gbp_details(f))(X, target)
    assert np.abs(found.attribution).max() > 0
    parts = found.input + sum(b.resized for b in found.biases.values())
    np.testing.assert_allclose(found.attribution, parts[:, 0], rtol=1e-6)
