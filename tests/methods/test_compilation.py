"""How large the programs of maps are."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax, nn
from speed import mostly_slow

import jaxattr

X, TARGET = jnp.ones((1, 8, 8, 3)), jnp.array([0])
NHWC = ("NHWC", "HWIO", "NHWC")


def stack(depth):
    """Return a network of so many blocks: a depthwise and a dense convolution, and a shortcut."""
    depthwise, dense, head = (
        jnp.ones((3, 3, 1, 4)) / 9,
        jnp.ones((3, 3, 4, 4)) / 36,
        jnp.ones((4, 5)),
    )

    def convolved(x, w, groups):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
        )

    def f(x):
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
        for _ in range(depth):
            x = x + nn.relu6(convolved(nn.relu(convolved(x, depthwise, 4)), dense, 1) + 0.1)
        return x.mean((1, 2)) @ head

    return f


def lines(explain):
    """Return how many operations are lowered for XLA on a CPU."""
    text = jax.jit(explain).trace(X, TARGET).lower(lowering_platforms=("cpu",)).as_text()
    return text.count(" = ")


METHODS = ["saliency", "lrp", "rap", "rsp", "fullgrad", "tr_gbp", "deeplift"]


@pytest.mark.parametrize("method", mostly_slow(METHODS, ["saliency", "fullgrad"]))
def test_programs_grow_with_depth_by_the_layer(method):
    """Each block more costs what the one before did."""
    sizes = [lines(getattr(jaxattr, method)(stack(depth))) for depth in (1, 2, 3)]
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert 0 < second <= 1.02 * first


def test_a_layer_is_one_equation_until_it_is_lowered():
    """Tracing a map takes no longer where a layer has a long spelling."""
    count = lambda f: str(jax.make_jaxpr(f)(X, TARGET)).count(" = ")
    own = lambda x, t: jax.grad(lambda x: stack(2)(x)[0, t[0]])(x)
    assert count(jaxattr.saliency(stack(2))) < 1.5 * count(own)
