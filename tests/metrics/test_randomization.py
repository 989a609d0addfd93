"""Randomized parameters."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxattr import metrics

KEY = jax.random.key(0)
ORDER = ["fc", "layer2", "layer1", "conv"]


def parameters():
    draw = lambda i, *shape: 3 + 2 * jax.random.normal(jax.random.key(i), shape)
    block = lambda i: {"conv1": {"kernel": draw(i, 30, 30)}, "step": jnp.arange(3)}
    return {
        "conv": {"kernel": draw(1, 30, 30), "bias": jnp.zeros(4)},
        "layer1": [block(2), block(3)],
        "layer10": draw(4, 5),
        "layer2": [block(5)],
        "fc": {"kernel": draw(6, 30, 30), "bias": draw(7, 5)},
    }


def changed(before, after):
    before, after = jax.tree.leaves_with_path(before), jax.tree.leaves(after)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for (path, a), b in zip(before, after, strict=True)
        if not np.array_equal(a, b)
    }


def test_a_cascade_contains_its_stages():
    trained = parameters()
    stages = [
        metrics.randomize_parameters(trained, ORDER[: i + 1], key=KEY) for i in range(len(ORDER))
    ]
    assert [changed(trained, stage) for stage in stages] == [
        {"fc.bias", "fc.kernel"},
        {"fc.bias", "fc.kernel", "layer2.0.conv1.kernel"},
        {"fc.bias", "fc.kernel", "layer2.0.conv1.kernel"}
        | {"layer1.0.conv1.kernel", "layer1.1.conv1.kernel"},
        {"fc.bias", "fc.kernel", "layer2.0.conv1.kernel", "conv.kernel"}
        | {"layer1.0.conv1.kernel", "layer1.1.conv1.kernel"},
    ]
    for earlier, later in pairwise(stages):
        assert not changed(trained, earlier) & changed(earlier, later)


def test_draws_follow_the_initializer():
    trained = parameters()
    own = metrics.randomize_parameters(trained, ["conv"], key=KEY)["conv"]["kernel"]
    np.testing.assert_allclose([own.mean(), own.std()], [3, 2], atol=0.3)
    small = metrics.randomize_parameters(
        trained, ["conv"], key=KEY, initializer=metrics.normal(std=0.01)
    )["conv"]["kernel"]
    np.testing.assert_allclose([small.mean(), small.std()], [0, 0.01], atol=0.002)
    shuffled = metrics.randomize_parameters(
        trained, ["conv"], key=KEY, initializer=metrics.permutation
    )["conv"]["kernel"]
    assert not np.array_equal(shuffled, trained["conv"]["kernel"])
    np.testing.assert_array_equal(
        np.sort(shuffled, axis=None), np.sort(trained["conv"]["kernel"], axis=None)
    )


def test_keys_decide_and_parameters_of_one_shape_differ():
    trained = parameters()
    one, same, other = (
        metrics.randomize_parameters(trained, ["layer1"], key=jax.random.key(i)) for i in (0, 0, 1)
    )
    assert not changed(one, same)
    assert len(changed(one, other)) == 2
    first, second = (block["conv1"]["kernel"] for block in one["layer1"])
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_jit_and_no_change_of_what_was_passed():
    trained = parameters()
    draw = lambda p, key: metrics.randomize_parameters(p, ["fc"], key=key)
    eager, jitted = draw(trained, KEY), jax.jit(draw)(trained, KEY)
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not changed(trained, parameters())


def test_an_unknown_layer_lists_the_known():
    with pytest.raises(ValueError, match=r"no layer 'layer'; they have conv, fc, layer1.0"):
        metrics.randomize_parameters(parameters(), ["fc", "layer"], key=KEY)


def test_nnx_and_equinox():
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    state = nnx.state(net, nnx.Param)
    drawn = metrics.randomize_parameters(state, ["layers.1"], key=KEY)
    assert changed(state, drawn) == {"layers.1.kernel.value"}  # a bias of zeros stays
    nnx.update(net, drawn)
    mlp = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    drawn = metrics.randomize_parameters(mlp, ["layers.1"], key=KEY)
    assert changed(eqx.filter(mlp, eqx.is_array), eqx.filter(drawn, eqx.is_array)) == {
        "layers.1.weight",
        "layers.1.bias",
    }
    assert drawn(jnp.ones(3)).shape == (2,)
