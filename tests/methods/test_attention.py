"""Methods made for transformers: their definitions by hand, whatever attention is written like."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn
from modern import attention, images, vit
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.image.resize import resize
from jaxattr.methods.attention_rollout import attention_rollout
from jaxattr.methods.generic_attention import generic_attention
from jaxattr.methods.gradient_attention import gradient_attention
from jaxattr.methods.libragrad import libragrad
from jaxattr.methods.transformer_attribution import relevances, transformer_attribution

TARGET = jnp.array([1, 3])


def einsum(q, k, v):
    scores = jnp.exp(jnp.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5)
    return jnp.einsum("bhqk,bhkd->bhqd", scores / scores.sum(-1, keepdims=True), v)


def transposed(q, k, v):
    logits = k @ q.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    return v.swapaxes(-1, -2) @ nn.softmax(logits, axis=-2)


def by_hand(x, added):
    """Return the logits, and attention weights with something added to them."""
    blocks = iter(added)
    seen = []

    def attend(q, k, v):
        a = nn.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) + next(blocks)
        seen.append(a)
        return a @ v

    return vit(attend=attend)(x), seen


@cache
def expected_maps():
    """Return images, and their rollout and gradient-weighted attention by hand."""
    zeros = [jnp.zeros((2, 2, 17, 17))] * 2

    @jax.jit
    def made(x):
        score = lambda added: by_hand(x, added)[0][jnp.arange(2), TARGET].sum()
        (a0, a1), (g0, g1) = by_hand(x, zeros)[1], jax.grad(score)(zeros)
        eye = jnp.eye(17)
        roll = ((eye + a1.mean(1)) / 2) @ ((eye + a0.mean(1)) / 2)
        c0, c1 = (jnp.maximum(a * g, 0).mean(1) for a, g in ((a0, g0), (a1, g1)))
        generic = c0 + c1 @ (eye + c0)
        return [resize(r[:, 0, 1:].reshape(2, 4, 4, 1), (8, 8)) for r in (roll, c1, generic)]

    x = images()
    return x, made(x)


METHODS = attention_rollout, gradient_attention, generic_attention


@pytest.mark.parametrize(
    "spelling", mostly_slow(["matmul", "einsum", "transposed", "remat"], ["matmul", "einsum"])
)
def test_attention_is_found_however_it_is_spelled(spelling):
    """Rollout, gradient-weighted attention of the last block and of all blocks, by hand."""
    attend = {"einsum": einsum, "transposed": lambda *a: transposed(*a).swapaxes(-1, -2)}
    with enable_x64(True):
        x, expected = expected_maps()
        f = vit(attend=attend.get(spelling, attention))
        f = jax.checkpoint(f) if spelling == "remat" else f
        ours = jax.jit(lambda x: [method(f)(x, TARGET) for method in METHODS])(x)
        for found, wanted in zip(ours, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
        if spelling == "matmul":  # which squeezes a batch of one away
            alone = jax.jit(generic_attention(f))(x[:1], TARGET[:1])
            np.testing.assert_allclose(alone, ours[2][:1], rtol=1e-9)


def test_transformer_attribution_by_its_definition():
    """Relevance of attention adds up with that of its values; `R` and gradients are rolled out."""
    with enable_x64(True):
        x, f = images(), vit()
        a, r = jax.jit(lambda x: (transformer_attribution(f)(x, TARGET), relevances(f, x, TARGET)))(
            x
        )

        @jax.jit
        def defined(x, r):
            score = lambda added: by_hand(x, added)[0][jnp.arange(2), TARGET].sum()
            gradients = jax.grad(score)([jnp.zeros((2, 2, 17, 17))] * 2)
            b0, b1 = (
                jnp.eye(17) + jnp.maximum(g * r, 0).mean(1)
                for g, r in zip(gradients, r, strict=True)
            )
            return resize((b1 @ b0)[:, 0, 1:].reshape(2, 4, 4, 1), (8, 8))

        expected = defined(x, r)
    np.testing.assert_allclose(a, expected, rtol=1e-9, atol=1e-12)


def test_libragrad_sums_to_the_logit_without_biases():
    with enable_x64(True):
        draw = jax.random.normal(jax.random.key(0), (3, 8), "float64")

        def f(x):
            tokens = x.reshape(len(x), -1, 3) @ draw
            tokens = tokens * jax.lax.rsqrt((tokens**2).mean(-1, keepdims=True) + 1e-5)
            return nn.gelu(attention(tokens, tokens, tokens)).mean(1)

        x = images()
        a = jax.jit(libragrad(f))(x, TARGET)
        np.testing.assert_allclose(a.sum((1, 2, 3)), f(x)[jnp.arange(2), TARGET], rtol=1e-9)


def test_what_has_no_attention_is_refused():
    x = jnp.ones((2, 8, 8, 3))
    for method in (attention_rollout, generic_attention):
        with pytest.raises(jaxattr.UnsupportedOperation, match=r"no self-attention.*jaxattr\.lrp"):
            jax.eval_shape(method(lambda x: nn.relu(x).mean((1, 2))), x, TARGET)
