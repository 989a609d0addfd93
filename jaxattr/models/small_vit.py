"""A small vision transformer for CIFAR-10: convolutions make its tokens, and the mean reads them.

Convolutions before a transformer are of Xiao et al., "Early Convolutions Help Transformers See
Better", NeurIPS 2021; without them so small a network learns little from 50,000 images.
`python benchmarks/train.py cifar_vit` trains it.
"""

from __future__ import annotations

from flax import nnx

from jaxattr.models.blocks import Classifier, Parts, Sequential, TorchLayout, conv_norm, linear
from jaxattr.models.vision_transformer import Encoder
from jaxattr.types import Array


class SmallViT(Classifier):
    """Three convolutions to 8 x 8 tokens, blocks of torchvision's ViT, and one dense layer.

    Its features are tokens `(B, 64, D)`, row by row, without a class token.
    """

    parts = Parts(features=("stem", "tokens", "encoder"), pooling=("mean",), head=("head",))
    torch = TorchLayout(last="head")

    def __init__(self, width: int, depth: int, heads: int, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        widths = (3, width // 4, width // 2, width)
        self.stem = Sequential(
            [
                conv_norm(widths[i], widths[i + 1], 3, stride=stride, rngs=rngs)
                for i, stride in enumerate((1, 2, 2))
            ]
        )
        self.encoder = Encoder(64, width, depth, heads, 2 * width, rngs=rngs)
        self.head = linear(width, classes, rngs=rngs)

    def tokens(self, x: Array) -> Array:
        """Put the positions of feature maps `(B, 8, 8, D)` in one row."""
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def mean(self, x: Array) -> Array:
        """Average the tokens to `(B, D)`."""
        return x.mean(1)


def cifar_vit(*, classes: int = 10, rngs: nnx.Rngs | None = None) -> SmallViT:
    """Build the vision transformer of six blocks, for images of 32 x 32."""
    return SmallViT(128, 6, 4, classes=classes, rngs=rngs)
