"""Write `peers_attention.npz`: what LXT's explicit rules make of a small vision transformer.

    PYTHONPATH=tests:LXT python tests/reference/make_peers_attention.py

in an environment with the project, torch 2.13.0 (CPU) and lxt 2.1, whose files may be unpacked to
LXT; nothing but `lxt.explicit` is needed. The network is `modern.vit`, with its weights drawn in
float64. Every stabilizer is 1e-12, where LXT's default is 1e-6, so that the arrays are those of the
rules themselves. `cp` is CP-LRP, the same with the softmax detached.
"""

from pathlib import Path

import jax
import numpy as np
import torch
from lxt.explicit import functional as lf
from lxt.explicit.rules import identity
from modern import images, vit, vit_weights
from torch.nn import functional as F

EPSILON = 1e-12
TARGET = [1, 3]


def tensor(a) -> torch.Tensor:
    return torch.from_numpy(np.array(a))


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    x = images()
    logits = vit()(x)
    arrays = {"x": np.moveaxis(np.asarray(x), -1, -3), "target": np.array(TARGET)}
    for name in ("attn", "cp"):
        leaf = tensor(x).requires_grad_()
        ours = network(leaf, hold=name == "cp")
        np.testing.assert_allclose(ours.detach(), logits, rtol=1e-9)
        start = torch.zeros_like(ours)
        for i, t in enumerate(TARGET):
            start[i, t] = ours[i, t].detach()
        (r,) = torch.autograd.grad(ours, leaf, start)
        arrays[name] = np.moveaxis(r.numpy(), -1, -3)
    np.savez_compressed(Path(__file__).parent / "peers_attention.npz", **arrays)


class Attended(torch.autograd.Function):
    """The epsilon rule with attention for weights, which LXT has for one matrix only."""

    @staticmethod
    def forward(ctx, s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(s, v)
        return s @ v

    @staticmethod
    def backward(ctx, r: torch.Tensor) -> tuple[None, torch.Tensor]:
        s, v = ctx.saved_tensors
        o = s @ v
        return None, v * (s.transpose(-1, -2) @ (r / (o + EPSILON * torch.where(o < 0, -1, 1))))


def network(x: torch.Tensor, *, hold: bool) -> torch.Tensor:
    """Run `modern.vit` by LXT's functions, whose gradients are relevance."""
    w = jax.tree.map(tensor, vit_weights())
    linear = lambda x, k, b=None: lf.linear_epsilon_fn.apply(x, k.T.contiguous(), b, EPSILON)
    add = lambda a, b: lf.add2_tensors_fn.apply(a, b, False, EPSILON)
    matmul = lambda a, b: lf.matmul_fn.apply(a, b, False, EPSILON)
    norm = lambda x, n: lf.layer_norm_grad_fn.apply(x, 1 + n[0], n[1], 1e-5, EPSILON)
    gelu = lambda x: identity(lambda z: F.gelu(z, approximate="tanh"), x)

    b, d = len(x), w.bias.shape[0]
    patches = x.reshape(b, 4, 2, 4, 2, 3).transpose(2, 3).reshape(b, 16, 12)
    x = linear(patches, w.patch.reshape(12, d), w.bias)
    x = torch.cat([w.token.expand(b, 1, d), x], 1)
    x = add(x, w.places.expand_as(x))
    for block in w.blocks:
        y = linear(norm(x, block["n1"][0]), *block["qkv"])
        q, k, v = y.reshape(b, 17, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        z = identity(lambda z: z / (d // 2) ** 0.5, matmul(q, k.transpose(-1, -2)))
        s = lf.softmax_fn.apply(z, -1)
        o = Attended.apply(s.detach(), v) if hold else matmul(s, v)
        y = o.transpose(1, 2).reshape(b, 17, d)
        x = add(x, linear(y, *block["o"]))
        y = gelu(linear(norm(x, block["n2"][0]), *block["up"]))
        x = add(x, linear(y, *block["down"]))
    return linear(norm(x, w.norm)[:, 0], w.head)


if __name__ == "__main__":
    main()
