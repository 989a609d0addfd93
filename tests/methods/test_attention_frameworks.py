"""Attention as frameworks write it: each method's map is that of the einsum spelling."""

from collections.abc import Callable
from functools import cache, partial, reduce
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax, nn
from speed import mostly_slow

import jaxattr

Weights: TypeAlias = dict[str, tuple[Array, Array]]
Attend: TypeAlias = Callable[[Array], Array]

WIDTH, HEADS, SIZE = 8, 2, 4
METHODS = [jaxattr.generic_attention, jaxattr.transformer_attribution, jaxattr.lrp]
TARGET = jnp.array([0, 2])


def draw(seed: int, *shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / shape[0] ** 0.5, "float32")


X = draw(3, 2, 4, 4, 3)


def weights(seed: int = 0) -> Weights:
    """Return kernels `(D, heads, size)` and biases of query, key and value, and of the output."""
    named = {
        name: (draw(seed + i, WIDTH, HEADS, SIZE), draw(seed + 4 + i, HEADS, SIZE) / 4)
        for i, name in enumerate(("query", "key", "value"))
    }
    return named | {"out": (draw(seed + 3, HEADS, SIZE, WIDTH), draw(seed + 7, WIDTH) / 4)}


def heads(x: Array, w: Weights) -> list[Array]:
    """Return query, key and value, `(B, N, heads, size)`."""
    return [jnp.einsum("bnd,dhs->bnhs", x, k) + b for k, b in (w["query"], w["key"], w["value"])]


def joined(mixed: Array, w: Weights) -> Array:
    kernel, bias = w["out"]
    return jnp.einsum("bnhs,hsd->bnd", mixed, kernel) + bias


def einsum(w: Weights) -> Attend:
    def attend(x: Array) -> Array:
        q, k, v = heads(x, w)
        a = nn.softmax(jnp.einsum("bqhs,bkhs->bhqk", q / SIZE**0.5, k))
        return joined(jnp.einsum("bhqk,bkhs->bqhs", a, v), w)

    return attend


def dot_product_attention(w: Weights) -> Attend:
    return lambda x: joined(nn.dot_product_attention(*heads(x, w)), w)


def flax_nnx(w: Weights) -> Attend:
    nnx = pytest.importorskip("flax.nnx")
    layer = nnx.MultiHeadAttention(
        num_heads=HEADS, in_features=WIDTH, decode=False, rngs=nnx.Rngs(0)
    )
    for name, (kernel, bias) in w.items():
        getattr(layer, name).kernel[...], getattr(layer, name).bias[...] = kernel, bias
    return layer


def flax_linen(w: Weights) -> Attend:
    linen = pytest.importorskip("flax.linen")
    named = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in w.items()}
    return partial(linen.MultiHeadDotProductAttention(num_heads=HEADS).apply, {"params": named})


def haiku(w: Weights) -> Attend:
    hk = pytest.importorskip("haiku")
    attend = hk.transform(lambda x: hk.MultiHeadAttention(HEADS, SIZE, w_init=jnp.zeros)(x, x, x))
    named = {
        f"multi_head_attention/{ {'out': 'linear'}.get(name, name) }": {
            "w": kernel.reshape(WIDTH, WIDTH),
            "b": bias.ravel(),
        }
        for name, (kernel, bias) in w.items()
    }
    return partial(attend.apply, named, None)


def equinox(w: Weights) -> Attend:
    eqx = pytest.importorskip("equinox")
    biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
    layer = eqx.nn.MultiheadAttention(HEADS, WIDTH, **biases, key=jax.random.key(0))
    for name, (kernel, bias) in w.items():
        place = lambda a, name=name: getattr(a, f"{ {'out': 'output'}.get(name, name) }_proj")
        new = kernel.reshape(WIDTH, WIDTH).T, bias.ravel()
        layer = eqx.tree_at(lambda a, p=place: (p(a).weight, p(a).bias), layer, new)
    return jax.vmap(lambda x: layer(x, x, x))


def keras(w: Weights) -> Attend:
    layers = pytest.importorskip("keras").layers
    layer = layers.MultiHeadAttention(HEADS, SIZE)
    layer.build((2, 4, WIDTH), (2, 4, WIDTH))
    layer.set_weights([a for name in ("query", "key", "value", "out") for a in w[name]])
    return lambda x: layer(x, x)


def looped(*blocks: Weights) -> Attend:
    """Run blocks in a scan over their weights."""
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *blocks)
    return lambda x: lax.scan(lambda x, w: (x + einsum(w)(x), None), x, stacked)[0]


def in_order(build: Callable[[Weights], Attend], *blocks: Weights) -> Attend:
    """Run blocks one after the other."""
    attends = [build(w) for w in blocks]
    return lambda x: reduce(lambda x, attend: x + attend(x), attends, x)


def network(spelling: Callable[..., Attend]) -> Attend:
    """Build a classifier of four patches by two blocks of attention."""
    blocks = spelling(weights(10), weights(20))

    def f(x: Array) -> Array:
        x = x.reshape(len(x), 2, 2, 2, 2, 3).swapaxes(2, 3).reshape(len(x), 4, 12)
        return blocks(x @ draw(1, 12, WIDTH)).mean(1) @ draw(2, WIDTH, 3)

    return f


SPELLINGS = {
    "dot_product_attention": partial(in_order, dot_product_attention),
    "nnx": partial(in_order, flax_nnx),
    "linen": partial(in_order, flax_linen),
    "haiku": partial(in_order, haiku),
    "equinox": partial(in_order, equinox),
    "keras": partial(in_order, keras),
    "scan": looped,
    "remat": partial(in_order, lambda w: jax.checkpoint(einsum(w))),
}


def maps(f: Callable, x: Array) -> list[Array]:
    built = [partial(m, grid=(2, 2)) if m is not jaxattr.lrp else m for m in METHODS]
    return jax.jit(lambda x: [m(f)(x, TARGET) for m in built])(x)


@cache
def expected() -> tuple[Array, list[Array]]:
    """Return logits and maps of the einsum spelling."""
    f = network(partial(in_order, einsum))
    return f(X), maps(f, X)


@pytest.mark.parametrize("name", mostly_slow(SPELLINGS, ["dot_product_attention", "nnx"]))
def test_attention_of_a_framework_is_attention(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    f, (logits, found) = network(SPELLINGS[name]), expected()
    np.testing.assert_allclose(f(X), logits, rtol=1e-4, atol=1e-5)
    for a, b in zip(maps(f, X), found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
