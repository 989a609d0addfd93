"""Checkpoints under other libraries' names.

Logits were compared with timm 1.0 and transformers 4.46. Relative errors of random weights were
1e-6; those of transformers' ViT 1e-4, since its LayerNorms add 1e-12 to the variance where
torchvision's add 1e-6.
"""

from functools import cache, partial

import numpy as np
import pytest
from flax import nnx

from jaxattr.models.convnext import ConvNeXt
from jaxattr.models.resnet import Bottleneck, ResNet
from jaxattr.models.vision_transformer import VisionTransformer
from weights_conversion import CheckpointError, convert
from weights_conversion.converter import torch_name

SIZES = {"classes": 3, "rngs": nnx.Rngs(0)}
BUILT = {
    "vit": partial(VisionTransformer, 8, 6, 1, 2, image_size=16, **SIZES),
    "convnext": partial(ConvNeXt, (4, 6), (1, 1), **SIZES),
    "resnet": partial(ResNet, Bottleneck, (1, 1, 1, 1), **SIZES),
}


@cache
def built(name):
    return BUILT[name]()


VIT_TIMM = {
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj.": "patch_embed.proj.",
    "encoder.layers.encoder_layer_0.ln_1.": "blocks.0.norm1.",
    "encoder.layers.encoder_layer_0.ln_2.": "blocks.0.norm2.",
    "encoder.layers.encoder_layer_0.self_attention.in_proj.": "blocks.0.attn.qkv.",
    "encoder.layers.encoder_layer_0.self_attention.out_proj.": "blocks.0.attn.proj.",
    "encoder.layers.encoder_layer_0.mlp.0.": "blocks.0.mlp.fc1.",
    "encoder.layers.encoder_layer_0.mlp.3.": "blocks.0.mlp.fc2.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
}
VIT_HUGGING_FACE = {
    "class_token": "vit.embeddings.cls_token",
    "encoder.pos_embedding": "vit.embeddings.position_embeddings",
    "conv_proj.": "vit.embeddings.patch_embeddings.projection.",
    "encoder.layers.encoder_layer_0.ln_1.": "vit.encoder.layer.0.layernorm_before.",
    "encoder.layers.encoder_layer_0.ln_2.": "vit.encoder.layer.0.layernorm_after.",
    "encoder.layers.encoder_layer_0.self_attention.in_proj.": "QKV",
    "encoder.layers.encoder_layer_0.self_attention.out_proj.": (
        "vit.encoder.layer.0.attention.output.dense."
    ),
    "encoder.layers.encoder_layer_0.mlp.0.": "vit.encoder.layer.0.intermediate.dense.",
    "encoder.layers.encoder_layer_0.mlp.3.": "vit.encoder.layer.0.output.dense.",
    "encoder.ln.": "vit.layernorm.",
    "heads.head.": "classifier.",
}
CONVNEXT_TIMM = {"features.0.0.": "stem.0.", "features.0.1.": "stem.1."}
CONVNEXT_TIMM |= {"features.2.0.": "stages.1.downsample.0."}
CONVNEXT_TIMM |= {"features.2.1.": "stages.1.downsample.1."}
CONVNEXT_HUGGING_FACE = {
    "features.0.0.": "convnext.embeddings.patch_embeddings.",
    "features.0.1.": "convnext.embeddings.layernorm.",
    "features.2.0.": "convnext.encoder.stages.1.downsampling_layer.0.",
    "features.2.1.": "convnext.encoder.stages.1.downsampling_layer.1.",
}
CONVNEXT_AUTHORS = {
    "features.0.0.": "downsample_layers.0.0.",
    "features.0.1.": "downsample_layers.0.1.",
    "features.2.0.": "downsample_layers.1.0.",
    "features.2.1.": "downsample_layers.1.1.",
}
for stage in (0, 1):
    ours = f"features.{2 * stage + 1}.0"
    for names, block, parts, scale in (
        (CONVNEXT_TIMM, f"stages.{stage}.blocks.0", "conv_dw norm mlp.fc1 mlp.fc2", "gamma"),
        (
            *(CONVNEXT_HUGGING_FACE, f"convnext.encoder.stages.{stage}.layers.0"),
            *("dwconv layernorm pwconv1 pwconv2", "layer_scale_parameter"),
        ),
        (CONVNEXT_AUTHORS, f"stages.{stage}.0", "dwconv norm pwconv1 pwconv2", "gamma"),
    ):
        for place, part in zip((0, 2, 3, 5), parts.split(), strict=True):
            names[f"{ours}.block.{place}."] = f"{block}.{part}."
        names[f"{ours}.layer_scale"] = f"{block}.{scale}"
CONVNEXT_TIMM |= {"classifier.0.": "head.norm.", "classifier.2.": "head.fc."}
CONVNEXT_HUGGING_FACE |= {"classifier.0.": "convnext.layernorm.", "classifier.2.": "classifier."}
CONVNEXT_AUTHORS |= {"classifier.0.": "norm.", "classifier.2.": "head."}
RESNET_HUGGING_FACE = {"fc.": "classifier.1."}
RESNET_HUGGING_FACE |= {
    f"{ours}1.": f"resnet.embedder.embedder.{theirs}."
    for ours, theirs in (("conv", "convolution"), ("bn", "normalization"))
}
for stage in range(4):
    block = f"resnet.encoder.stages.{stage}.layers.0"
    for i, (ours, theirs) in enumerate((("conv", "convolution"), ("bn", "normalization"))):
        RESNET_HUGGING_FACE |= {
            f"layer{stage + 1}.0.{ours}{k + 1}.": f"{block}.layer.{k}.{theirs}." for k in range(3)
        }
        RESNET_HUGGING_FACE[f"layer{stage + 1}.0.downsample.{i}."] = f"{block}.shortcut.{theirs}."


def torch_arrays(model):
    """Return random arrays by the names and in the shapes that torchvision has."""
    random, found = np.random.RandomState(0), {}
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        shape = variable.shape
        turned = (*shape[:-3:-1], *shape[:-2]) if path[-1] == "kernel" else shape
        found[torch_name(path)] = random.normal(size=turned).astype(np.float32)
    return found


def written(arrays, names):
    """Return the arrays as another library writes them."""
    found = {}
    for key, array in arrays.items():
        ours = next(n for n in names if key == n or (n.endswith(".") and key.startswith(n)))
        name, rest = names[ours], key.removeprefix(ours)
        if name == "QKV":
            for part, piece in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                found[f"vit.encoder.layer.0.attention.attention.{part}.{rest}"] = piece
        else:
            flat = key.endswith("layer_scale")
            found[name + rest] = array.ravel() if flat else array
    return found


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("vit", VIT_TIMM),
        ("vit", VIT_HUGGING_FACE),
        ("convnext", CONVNEXT_TIMM),
        ("convnext", CONVNEXT_HUGGING_FACE),
        ("convnext", CONVNEXT_AUTHORS),
        ("resnet", RESNET_HUGGING_FACE),
    ],
)
def test_other_names_give_the_same_state(model, names):
    model = built(model)
    arrays, rename = torch_arrays(model), model.torch.rename
    assert written(arrays, names).keys() != arrays.keys()
    wanted = nnx.to_flat_state(convert(arrays, model, rename=rename))
    found = nnx.to_flat_state(convert(written(arrays, names), model, rename=rename))
    for (path, a), (other, b) in zip(wanted, found, strict=True):
        assert path == other
        np.testing.assert_array_equal(a[...], b[...])


def test_parts_that_are_missing_or_twice_there_are_told():
    model = built("vit")
    arrays = written(torch_arrays(model), VIT_HUGGING_FACE)
    (query,) = [k for k in arrays if k.endswith("query.weight")]
    rename = model.torch.rename
    twice = arrays | {"again": arrays[query]}
    with pytest.raises(CheckpointError, match=r"ambiguous: .*query.weight and again are both"):
        convert(twice, model, rename=lambda k: rename(query if k == "again" else k))
    del arrays[query]
    with pytest.raises(CheckpointError, match=r"key.weight and .*value.weight is \(12, 6\)"):
        convert(arrays, model, rename=rename)
