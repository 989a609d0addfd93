"""Every family of models under methods of every kind, in narrow and shallow members."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from speed import mostly_slow

import jaxattr
from jaxattr import models
from jaxattr.models.convnext import ConvNeXt
from jaxattr.models.densenet import DenseNet
from jaxattr.models.mobilenet_v3 import SMALL, MobileNetV3
from jaxattr.models.regnet import Design, RegNet
from jaxattr.models.squeezenet import SqueezeNet
from jaxattr.models.swin_transformer import SwinTransformer
from jaxattr.models.vision_transformer import VisionTransformer
from jaxattr.tracing.taps import split


def fires(*, classes, rngs):
    stem = models.blocks.conv(3, 8, 3, stride=2, bias=True, rngs=rngs)
    return SqueezeNet(stem, (((4, 8),), ((4, 8),)), classes=classes, rngs=rngs)


# Of each family a small member, the side of its images, the layer that CAMs take by default, one of
# torch's names and the shape of its value.
MEMBERS = {
    "convnext": (
        *(partial(ConvNeXt, (8, 16), (1, 1)), 32),
        *("features.3", "features.1.0.block.0", (2, 8, 8, 8)),
    ),
    "vit": (
        *(partial(VisionTransformer, 8, 16, 2, 2, image_size=32), 32),
        *("encoder.layers.encoder_layer_1.ln_1", "encoder.layers.encoder_layer_1.mlp", (2, 17, 16)),
    ),
    "swin": (
        *(partial(SwinTransformer, 8, (2, 1), (2, 2)), 32),
        *("features.3", "features.1.1.attn", (2, 8, 8, 8)),
    ),
    "mobilenet_v3": (
        *(partial(MobileNetV3, SMALL[:3], 16), 32),
        *("features.4", "features.1.block.1", (2, 8, 8, 16)),
    ),
    "densenet": (
        *(partial(DenseNet, 4, (1, 1), 8), 32),
        *("relu", "features.denseblock1", (2, 8, 8, 12)),
    ),
    "regnet": (
        *(partial(RegNet, Design((1, 1, 1, 1), (8, 8, 8, 8), 4)), 64),
        *("trunk_output", "trunk_output.block2.block2-0.f.b", (2, 8, 8, 8)),
    ),
    "squeezenet": (fires, 32, "classifier.2", "features.3.squeeze", (2, 8, 8, 4)),
}
QUICK = ("squeezenet",)
METHODS = (jaxattr.saliency, jaxattr.guided_backprop, jaxattr.grad_cam, jaxattr.lrp)


def member(name):
    build, side, *_ = MEMBERS[name]
    values = np.random.RandomState(0).uniform(-1, 1, (2, side, side, 3))
    return build(classes=3, rngs=nnx.Rngs(0)), jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize("name", mostly_slow(MEMBERS, QUICK))
def test_layers_have_torchs_names(name):
    model, x = member(name)
    _, _, default, layer, shape = MEMBERS[name]
    assert jax.eval_shape(lambda x: split(model, x, layer=layer).before(x), x).shape == shape
    found, wanted = jax.jit(
        lambda x: [split(model, x, layer=n).before(x) for n in (None, default)]
    )(x)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", mostly_slow(MEMBERS, QUICK))
def test_methods_explain_it(name):
    """Each image by itself; the values of a model are those of its lowered form."""
    model, x = member(name)
    target = jnp.array([0, 2])

    @jax.jit
    def explain(model, x, target):
        return jaxattr.lowered(model)(x), [method(model)(x, target) for method in METHODS]

    (logits, maps), (_, reverse) = explain(model, x, target), explain(model, x[::-1], target[::-1])
    scale = jnp.abs(logits).max()
    np.testing.assert_allclose(jax.jit(model)(x), logits, rtol=0, atol=1e-5 * scale)
    for both, turned in zip(maps, reverse, strict=True):
        scale = jnp.abs(both).max()
        assert scale > 0
        np.testing.assert_allclose(both, turned[::-1], rtol=0, atol=1e-4 * scale)
