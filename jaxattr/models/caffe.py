"""VGG-16 and ResNet-50 for PASCAL VOC and COCO, as trained in Caffe and published with TorchRay.

Networks of the pointing game: several labels an image, a logit each, of which the probability is
the sigmoid. They are fully convolutional, since photographs keep their shape.

References: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016 (training);
Fong, Patrick and Vedaldi, "Understanding deep networks via extremal perturbations and smooth
masks", ICCV 2019 (conversion).
"""

from __future__ import annotations

import re
from functools import partial

import jax
from flax import nnx

from jaxattr.models.blocks import (
    Classifier,
    Parts,
    Sequential,
    TorchLayout,
    average_pool,
    batch_norm,
    conv,
    global_average_pool,
    linear,
    max_pool,
)
from jaxattr.models.resnet import WIDTHS, Bottleneck, ResNet
from jaxattr.models.vgg import CONVOLUTIONS
from jaxattr.models.vgg import WIDTHS as VGG_WIDTHS
from jaxattr.types import Array


def to_bgr(x: Array) -> Array:
    """Reverse the channels: the published kernels take blue first."""
    return x[..., ::-1]


def join_positions(logits: Array) -> Array:
    """Join maps of logits `(B, h, w, classes)` to one logit for each class.

        y_c = log sum_p exp(y_cp)

    Its derivative is the softmax over the positions, the weights with which TorchRay starts a
    backward pass; at one position it is the logit itself.
    """
    return jax.nn.logsumexp(logits, (1, 2))


class CaffeVGG(Classifier):
    """VGG-16 whose dense layers are convolutions, and whose pools keep a last odd row and column.

    `classifier` has the indices of the published file, without places for dropouts. For images
    of at least 193 x 193.
    """

    parts = Parts(features=("order", "features"), pooling=(), head=("classifier", "join"))
    torch = TorchLayout(last="classifier.4")
    multi_label = True

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.order = to_bgr
        self.features = Sequential()
        inputs = 3
        for width, repeats in zip(VGG_WIDTHS, CONVOLUTIONS[16], strict=True):
            for _ in range(repeats):
                self.features.append(conv(inputs, width, 3, bias=True, rngs=rngs))
                self.features.append(nnx.relu)
                inputs = width
            self.features.append(partial(max_pool, size=2, stride=2, ceil=True))
        dense = partial(conv, bias=True, padding=0, rngs=rngs)
        self.classifier = Sequential(
            [dense(inputs, 4096, 7), nnx.relu, dense(4096, 4096, 1), nnx.relu]
        )
        self.classifier.append(dense(4096, classes, 1))
        self.join = join_positions


def _without_halves(key: str) -> str:
    """Join the two halves of a BatchNorm: `bn1.0` has its statistics, `bn1.1` scale and bias."""
    return re.sub(r"(bn\d|downsample\.\d)\.[01]\.", r"\1.", key)


class CaffeResNet(Classifier):
    """ResNet-50 with strides at the first 1x1 convolution and a bias at the first layer.

    With `windows` the last feature maps are averaged over windows of 7x7, each of which has
    logits of its own: the published results of gradients and of excitation backprop. Without,
    over all positions: those of RISE and of extremal perturbations. For images of at least
    193 x 193.
    """

    parts = Parts(
        features=("order", *ResNet.parts.features),
        pooling=("avgpool",),
        head=("fc", "join"),
    )
    torch = TorchLayout(last="fc", rename=_without_halves)
    multi_label = True

    def __init__(self, *, classes: int, rngs: nnx.Rngs | None, windows: bool = True):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.order = to_bgr
        self.conv1 = conv(3, WIDTHS[0], 7, stride=2, bias=True, rngs=rngs)
        self.bn1 = batch_norm(WIDTHS[0], rngs=rngs)
        self.relu = nnx.relu
        self.maxpool = partial(max_pool, size=3, stride=2, ceil=True)
        inputs = WIDTHS[0]
        for stage, (width, blocks) in enumerate(zip(WIDTHS, (3, 4, 6, 3), strict=True), start=1):
            layer = Sequential()
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                layer.append(Bottleneck(inputs, width, stride, first=True, rngs=rngs))
                inputs = width * Bottleneck.expansion
            setattr(self, f"layer{stage}", layer)
        self.avgpool = partial(average_pool, size=7, stride=1) if windows else global_average_pool
        self.fc = linear(inputs, classes, rngs=rngs)
        self.join = join_positions


def vgg16_voc07(*, classes: int = 20, rngs: nnx.Rngs | None = None) -> CaffeVGG:
    """Build VGG-16 for PASCAL VOC 2007."""
    return CaffeVGG(classes=classes, rngs=rngs)


def vgg16_coco14(*, classes: int = 80, rngs: nnx.Rngs | None = None) -> CaffeVGG:
    """Build VGG-16 for COCO 2014."""
    return CaffeVGG(classes=classes, rngs=rngs)


def resnet50_voc07(
    *, classes: int = 20, rngs: nnx.Rngs | None = None, windows: bool = True
) -> CaffeResNet:
    """Build ResNet-50 for PASCAL VOC 2007."""
    return CaffeResNet(classes=classes, rngs=rngs, windows=windows)


def resnet50_coco14(
    *, classes: int = 80, rngs: nnx.Rngs | None = None, windows: bool = True
) -> CaffeResNet:
    """Build ResNet-50 for COCO 2014."""
    return CaffeResNet(classes=classes, rngs=rngs, windows=windows)
