"""Relevance through a two-block ViT, written with dense matrices of contributions in NumPy.

No stabilizers: every share is `contribution / sum of contributions`, as the papers state the rules
(Achtibat et al., AttnLRP, ICML 2024; Ali et al., XAI for transformers, ICML 2022). The network is
`modern.vit`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modern import WIDTH, images, vit, vit_weights
from peers import relative_error
from precision import enable_x64
from speed import mostly_slow

import jaxattr
from jaxattr.rules.composites import attn_lrp, cp_lrp

TOKENS, HEADS, TARGET = 17, 2, (1, 3)
COMPOSITES = {
    "attn": (attn_lrp, None, None),
    "attn, gamma": (attn_lrp, 0.05, 0.25),  # by default
    "cp": (cp_lrp, None, None),
    "cp, gamma": (cp_lrp, 0.05, 0.25),
}


def share(z, b, r, gamma=None):
    """Give the relevance `r` of outputs `z.sum(0) + b` to their contributions `z`, (in, out)."""
    total = z.sum(0) + b
    if gamma is not None:
        sign = np.where(total > 0, 1, -1)
        z, b = z + gamma * np.where(z * sign > 0, z, 0), b + gamma * np.where(b * sign > 0, b, 0)
        total = z.sum(0) + b
    return (z / total * r).sum(1)


class Layer(NamedTuple):
    """`x M + b` of all tokens at once, `M` dense."""

    x: np.ndarray
    matrix: np.ndarray
    b: np.ndarray
    gamma: float | None = None

    def back(self, r):
        z = self.x.ravel()[:, None] * self.matrix
        return share(z, self.b.ravel(), r.ravel(), self.gamma).reshape(self.x.shape)


def dense(x, w, gamma):
    kernel, bias = w
    layer = Layer(x, np.kron(np.eye(len(x)), kernel), np.tile(bias, len(x)), gamma)
    return x @ kernel + bias, layer.back


def norm(x, w):
    """Hold the deviation: what is left is a matrix that subtracts the mean, and a shift."""
    d = x.shape[-1]
    deviation = np.sqrt(x.var(-1) + 1e-5)
    subtract = np.eye(d) - 1 / d
    matrix = np.zeros((x.size, x.size))
    for i, s in enumerate(deviation):
        part = slice(d * i, d * (i + 1))
        matrix[part, part] = subtract / s * (1 + w[0])
    y = (x.ravel() @ matrix).reshape(x.shape) + w[1]
    return y, Layer(x, matrix, np.tile(w[1], len(x))).back


def add(a, b):
    return a + b, lambda r: (a / (a + b) * r, b / (a + b) * r)


def multiply(a, v, *, hold=False):
    """`O_jp = sum_i A_ji V_ip`; all of the relevance to V if A is held, or else half to each."""
    pairs = np.einsum("ji,ip->jip", a, v)
    o = pairs.sum(1)

    def back(r):
        each = pairs / o[:, None] * r[:, None]
        return (0 * a, each.sum(0)) if hold else (each.sum(2) / 2, each.sum(0) / 2)

    return o, back


def softmax(z):
    s = np.exp(z - z.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    jacobian = lambda s: np.diag(s) - np.outer(s, s)
    # Relevance of s is s times its derivative: the Taylor expansion at z.
    back = lambda r: np.stack(
        [z * (jacobian(s) @ (r / s)) for z, s, r in zip(z, s, r, strict=True)]
    )
    return s, back


def attention(x, w, gamma, hold):
    size = WIDTH // HEADS
    projected, back_in = dense(x, w["qkv"], gamma)
    o, backs = np.zeros((TOKENS, WIDTH)), []
    for h in range(HEADS):
        at = [slice(WIDTH * i + size * h, WIDTH * i + size * (h + 1)) for i in range(3)]
        q, k, v = (projected[:, part] for part in at)
        logits, back_logits = multiply(q, k.T)
        s, back_s = softmax(logits / np.sqrt(size))
        o[:, at[0]], back_o = multiply(s, v, hold=hold)
        backs.append((at, back_logits, back_s, back_o))
    y, back_out = dense(o, w["o"], gamma)

    def back(r):
        r, down = back_out(r), np.zeros_like(projected)
        for at, back_logits, back_s, back_o in backs:
            of_s, down[:, at[2]] = back_o(r[:, at[0]])
            down[:, at[0]], of_k = back_logits(back_s(of_s))
            down[:, at[1]] = of_k.T
        return back_in(down)

    return y, back


def gelu(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def block(x, w, gamma, hold):
    y, back_n1 = norm(x, w["n1"][0])
    y, back_attention = attention(y, w, gamma, hold)
    x, back_first = add(x, y)
    y, back_n2 = norm(x, w["n2"][0])
    y, back_up = dense(y, w["up"], gamma)
    y, back_down = dense(gelu(y), w["down"], gamma)
    x, back_second = add(x, y)

    def back(r):
        kept, r = back_second(r)
        r = kept + back_n2(back_up(back_down(r)))
        kept, r = back_first(r)
        return kept + back_n1(back_attention(r))

    return x, back


def relevance(x, w, target, *, gamma, patch_gamma, hold):
    """Return the relevance of one image `(8, 8, 3)`, and its logits."""
    patches = x.reshape(4, 2, 4, 2, 3).swapaxes(1, 2).reshape(16, 12)
    y, back_patches = dense(patches, (w.patch.reshape(12, -1), w.bias), patch_gamma)
    tokens = np.concatenate([w.token[0], y])
    y, back_places = add(tokens, w.places[0])
    backs = []
    for layer in w.blocks:
        y, back = block(y, layer, gamma, hold)
        backs.append(back)
    y, back_norm = norm(y, w.norm)
    logits, back_head = dense(y[:1], (w.head, np.zeros(w.head.shape[1])), gamma)
    r = np.zeros_like(y)
    r[:1] = back_head(logits * np.eye(len(w.head.T))[target])
    r = back_norm(r)
    for back in reversed(backs):
        r = back(r)
    r = back_patches(back_places(r)[0][1:])
    return r.reshape(4, 4, 2, 2, 3).swapaxes(1, 2).reshape(8, 8, 3), logits[0]


@pytest.mark.parametrize("name", mostly_slow(COMPOSITES, ["attn, gamma"]))
def test_a_transformer_against_its_dense_contributions(name):
    composite, gamma, patch_gamma = COMPOSITES[name]
    with enable_x64(True):
        x, made = images(), composite(epsilon=0.0, gamma=gamma, patch_gamma=patch_gamma)
        a = jax.jit(jaxattr.lrp(vit(), composite=made))(x, jnp.array(TARGET))
        w = jax.tree.map(np.asarray, vit_weights())
    given = {"gamma": gamma, "patch_gamma": patch_gamma, "hold": composite is cp_lrp}
    expected = [relevance(np.asarray(i), w, t, **given)[0] for i, t in zip(x, TARGET, strict=True)]
    assert relative_error(a, np.stack(expected)) < 1e-10
