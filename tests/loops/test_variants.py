"""A model's answers for variants of its images, whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr.loops.variants import evaluate_variants

X = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype(np.float32)


def f(x):
    return jnp.stack([jnp.tanh(x).sum((1, 2, 3)), (x**2).sum((1, 2, 3))], -1)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_every_variant_is_answered_for(chunk):
    numbers = np.array([0.5, 2.0, -1.0, 3.0, 0.0, 1.0, 4.0], np.float32)
    read = lambda logits, number: {"first": logits[:, 0], "with": logits[:, 1] + number}
    found = jax.jit(lambda n: evaluate_variants(f, lambda s: s * X, n, read, chunk=chunk))(numbers)
    expected = np.stack([f(s * X) for s in numbers], 1)
    np.testing.assert_allclose(found["first"], expected[..., 0], rtol=1e-5)
    np.testing.assert_allclose(found["with"], expected[..., 1] + numbers, rtol=1e-5)


def test_logits_are_read_in_float32_and_the_model_is_traced_once():
    traces = []

    def traced(x):
        traces.append(x.shape)
        return f(x).astype(jnp.bfloat16)

    read = lambda logits, number: logits[:, 0]
    evaluate_variants(traced, lambda s: s * X, jnp.arange(6.0), read, chunk=2)
    found = evaluate_variants(traced, lambda s: s * X, jnp.arange(6.0), read, chunk=2)
    assert found.dtype == jnp.float32
    assert set(traces) == {(4, 3, 4, 1)}
