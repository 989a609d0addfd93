"""The Vision Transformer, as torchvision lays it out.

Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale", ICLR 2021.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxattr.models import foreign
from jaxattr.models.blocks import (
    Classifier,
    Named,
    Parts,
    Sequential,
    TorchLayout,
    call,
    conv,
    gelu,
    identity,
    layer_norm,
    linear,
)
from jaxattr.types import Array


class SelfAttention(nnx.Module):
    """Attention of every token to every token, in several heads."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.in_proj = linear(width, 3 * width, rngs=rngs)
        self.out_proj = linear(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Apply it to tokens `(B, N, D)`."""
        projected = call(self.in_proj, "in_proj", x).reshape(*x.shape[:2], 3, self.heads, -1)
        query, key, value = (projected[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
        return call(self.out_proj, "out_proj", mixed.reshape(x.shape))


class EncoderBlock(nnx.Module):
    """Attention and two dense layers, each normalized before and its input added back.

    The places 2 and 4 of `mlp` are torchvision's dropouts.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, rngs: nnx.Rngs):
        self.ln_1 = layer_norm(width, rngs=rngs)
        self.self_attention = SelfAttention(width, heads, rngs=rngs)
        self.ln_2 = layer_norm(width, rngs=rngs)
        self.mlp = Sequential(
            [
                linear(width, hidden, rngs=rngs),
                gelu,
                identity,
                linear(hidden, width, rngs=rngs),
                identity,
            ]
        )

    def __call__(self, x: Array) -> Array:
        """Apply the block to tokens `(B, N, D)`."""
        x = x + call(self.self_attention, "self_attention", call(self.ln_1, "ln_1", x))
        return x + call(self.mlp, "mlp", call(self.ln_2, "ln_2", x))


class Encoder(nnx.Module):
    """Blocks that take tokens with their positions added."""

    def __init__(
        self, tokens: int, width: int, depth: int, heads: int, hidden: int, *, rngs: nnx.Rngs
    ):
        self.pos_embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, tokens, width)))
        self.layers = Named(
            **{
                f"encoder_layer_{i}": EncoderBlock(width, heads, hidden, rngs=rngs)
                for i in range(depth)
            }
        )
        self.ln = layer_norm(width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Apply the blocks to tokens `(B, N, D)`."""
        x = call(self.layers, "layers", x + self.pos_embedding[...])
        return call(self.ln, "ln", x)


class VisionTransformer(Classifier):
    """A Vision Transformer for square images of one size.

    Its features are tokens `(B, 1 + N, D)`: the class token, then the patches row by row.
    """

    parts = Parts(
        features=("conv_proj", "tokens", "encoder"), pooling=("first_token",), head=("heads",)
    )
    torch = TorchLayout(last="heads.head", rename=foreign.vision_transformer)

    def __init__(
        self,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        *,
        classes: int,
        rngs: nnx.Rngs | None,
        image_size: int = 224,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.grid = image_size // patch
        self.class_token = nnx.Param(jnp.zeros((1, 1, width)))
        self.conv_proj = conv(3, width, patch, stride=patch, padding=0, bias=True, rngs=rngs)
        tokens = 1 + self.grid**2
        self.encoder = Encoder(tokens, width, depth, heads, 4 * width, rngs=rngs)
        self.heads = Named(head=linear(width, classes, rngs=rngs))

    def tokens(self, x: Array) -> Array:
        """Put the class token before the patches `(B, h, w, D)`."""
        if x.shape[1:3] != (self.grid, self.grid):
            raise ValueError(
                f"the model has positions for {self.grid} x {self.grid} patches, but the images "
                f"have {x.shape[1]} x {x.shape[2]}: resize them to the size that it was built for"
            )
        patches = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[-1]))
        return jnp.concatenate([first.astype(x.dtype), patches], axis=1)

    def first_token(self, x: Array) -> Array:
        """Return the class token `(B, D)`."""
        return x[:, 0]


def vit_b_16(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VisionTransformer:
    """Build ViT-B/16, for images of 224 x 224."""
    return VisionTransformer(16, 768, 12, 12, classes=classes, rngs=rngs)


def vit_b_32(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VisionTransformer:
    """Build ViT-B/32, for images of 224 x 224."""
    return VisionTransformer(32, 768, 12, 12, classes=classes, rngs=rngs)


def vit_l_16(*, classes: int = 1000, rngs: nnx.Rngs | None = None) -> VisionTransformer:
    """Build ViT-L/16, for images of 224 x 224."""
    return VisionTransformer(16, 1024, 24, 16, classes=classes, rngs=rngs)
