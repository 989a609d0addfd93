"""A batch in pieces gets the same maps."""

import chex
import jax
import numpy as np
import pytest
from nets import load, plain
from speed import mostly_slow

import jaxattr


@pytest.mark.parametrize("size", mostly_slow([1, 2, 5], [2]))
def test_the_same_maps(size):
    net, params, x, target = load("tiny")
    attribute, key = (
        jaxattr.smoothgrad(jaxattr.saliency(plain(net, params)), samples=2),
        jax.random.key(0),
    )
    whole = jax.jit(attribute)(x, target, key=key)
    pieces = jax.jit(jaxattr.batched(attribute, size))(x, target, key=key)
    np.testing.assert_allclose(pieces, whole, rtol=1e-4, atol=1e-6)


def test_all_fields():
    net, params, x, target = load("tiny")
    decompose = jaxattr.dmbp_details(plain(net, params), steps=2)
    whole, pieces = (jax.jit(d)(x, target) for d in (decompose, jaxattr.batched(decompose, 2)))
    chex.assert_trees_all_close(pieces, whole, rtol=1e-3, atol=1e-5)


def test_memory_is_that_of_one_piece():
    net, params, x, target = load("vgg")
    attribute = jaxattr.saliency(plain(net, params))
    x, target = np.tile(x, (40, 1, 1, 1)), np.tile(target, 40)
    temporary = lambda a: jax.jit(a).lower(x, target).compile().memory_analysis().temp_size_in_bytes
    assert temporary(jaxattr.batched(attribute, 4)) < temporary(attribute) / 4


def test_size():
    with pytest.raises(ValueError, match="size is 0"):
        jaxattr.batched(jaxattr.saliency(lambda x: x), 0)
