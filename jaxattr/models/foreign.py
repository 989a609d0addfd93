"""What timm, Hugging Face's transformers and authors call the layers of torchvision's models.

Each function takes a key of a checkpoint of any of them to torchvision's, whose own stay as they
are. `name[0]`, `name[1]`, ... are arrays to be put one behind the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def renamed(key: str, rules: Sequence[Rule]) -> str:
    """Apply all rules, a regular expression and what takes its place, one after the other.

    >>> renamed("norm.weight", [("norm", "ln"), ("^ln", "encoder.ln")])
    'encoder.ln.weight'
    """
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def vision_transformer(key: str) -> str:
    """Name a parameter of a Vision Transformer.

    >>> vision_transformer("blocks.3.attn.qkv.weight")
    'encoder.layers.encoder_layer_3.self_attention.in_proj.weight'
    >>> vision_transformer("vit.encoder.layer.3.attention.attention.value.bias")
    'encoder.layers.encoder_layer_3.self_attention.in_proj.bias[2]'
    """
    return renamed(key, _VISION_TRANSFORMER)


def convnext(key: str) -> str:
    """Name a parameter of a ConvNeXt.

    >>> convnext("stages.1.blocks.0.mlp.fc2.bias")
    'features.3.0.block.5.bias'
    >>> convnext("convnext.encoder.stages.1.downsampling_layer.0.weight")
    'features.2.0.weight'
    """
    return renamed(key, _CONVNEXT)


def resnet(key: str) -> str:
    """Name a parameter of a ResNet.

    >>> resnet("resnet.encoder.stages.0.layers.2.layer.1.normalization.running_mean")
    'layer1.2.bn2.running_mean'
    """
    return renamed(key, _RESNET)


def _part(found: re.Match[str]) -> str:
    return f".self_attention.in_proj.{found[2]}[{('query', 'key', 'value').index(found[1])}]"


_VISION_TRANSFORMER: tuple[Rule, ...] = (
    (r"^vit\.", ""),
    (r"^(embeddings\.)?cls_token$", "class_token"),
    (r"^(embeddings\.position_embeddings|pos_embed)$", "encoder.pos_embedding"),
    (r"^(embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.", "conv_proj."),
    (r"^(?:encoder\.layer|blocks)\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"\.(layernorm_before|norm1)\.", ".ln_1."),
    (r"\.(layernorm_after|norm2)\.", ".ln_2."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj."),
    (r"\.attention\.attention\.(query|key|value)\.(weight|bias)$", _part),
    (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    (r"\.(attn\.proj|attention\.output\.dense)\.", ".self_attention.out_proj."),
    (r"\.(intermediate\.dense|mlp\.fc1|mlp\.linear_1)\.", ".mlp.0."),
    (r"\.(output\.dense|mlp\.fc2|mlp\.linear_2)\.", ".mlp.3."),
    (r"^(layernorm|norm)\.", "encoder.ln."),
    (r"^(classifier|head)\.", "heads.head."),
)

_CONVNEXT: tuple[Rule, ...] = (
    (r"^convnext\.", ""),
    (r"^(embeddings\.patch_embeddings|stem\.0|downsample_layers\.0\.0)\.", "features.0.0."),
    (r"^(embeddings\.layernorm|stem\.1|downsample_layers\.0\.1)\.", "features.0.1."),
    (
        r"^(?:(?:encoder\.)?stages\.(\d+)\.downsampl\w+|downsample_layers\.(\d+))\.",
        lambda m: f"features.{2 * int(m[1] or m[2])}.",
    ),
    (
        r"^(?:encoder\.)?stages\.(\d+)\.(?:layers\.|blocks\.)?(\d+)\.",
        lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}.",
    ),
    (r"\.(dwconv|conv_dw)\.", ".block.0."),
    (r"^(features\.\d+\.\d+)\.(layernorm|norm)\.", r"\1.block.2."),
    (r"\.(pwconv1|mlp\.fc1)\.", ".block.3."),
    (r"\.(pwconv2|mlp\.fc2)\.", ".block.5."),
    (r"\.(gamma|layer_scale_parameter)$", ".layer_scale"),
    (r"^(layernorm|norm|head\.norm)\.", "classifier.0."),
    (r"^(head\.fc|head)\.", "classifier.2."),
    (r"^classifier\.(weight|bias)$", r"classifier.2.\1"),
)

_RESNET: tuple[Rule, ...] = (
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"^classifier\.1\.", "fc."),
)
