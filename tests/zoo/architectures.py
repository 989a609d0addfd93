"""Tiny instances of the architectures that people use, with random weights.

Each function draws its weights and returns a classifier of images `(B, 8, 8, 2)`, whose first line
of documentation says what is in it. `SAME` names those that are one network, spelled otherwise.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from frameworks import FRAMEWORKS
from jax import Array, lax, nn
from nets import BatchNorm, Conv, Dense, Mean, Net, Relu, Residual, plain

Classifier = Callable[[Array], Array]

RESNET: Net = (
    Conv("conv", 2, 4),
    BatchNorm("bn", 4),
    Relu("relu"),
    Residual(
        "block",
        main=(Conv("conv1", 4, 4), BatchNorm("bn1", 4), Relu("relu"), Conv("conv2", 4, 4)),
        after=(Relu("relu2"),),
    ),
    Mean("pool"),
    Dense("fc", 4, 3),
)


def draw(seed: int) -> Callable[..., Array]:
    """Return a function that draws a weight `(..., fan in, fan out)` of a shape."""
    rng = np.random.default_rng(seed)
    scaled = lambda *shape: rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5
    return lambda *shape: jnp.asarray(scaled(*shape), "float32")


def images(count: int) -> tuple[Array, Array]:
    """Return images and classes, of which the first is that of one logit too."""
    x = np.random.default_rng(1).normal(size=(count, 8, 8, 2))
    return jnp.asarray(x, "float32"), jnp.arange(count) % 3


def conv(x: Array, w: Array, stride: int = 1, groups: int = 1) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def max_pool(x: Array, size: int = 2) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, 2, 2, 1), "VALID")


def average_pool(x: Array) -> Array:
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def affine(w: Callable[..., Array], features: int) -> Classifier:
    """Return a BatchNorm in evaluation mode."""
    scale, shift = 1 + 0.2 * w(features), 0.2 * w(features)
    return lambda x: x * scale + shift


def layer_norm(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def group_norm(x: Array) -> Array:
    groups = x.reshape(*x.shape[:3], 2, -1)
    normal = (groups - groups.mean((1, 2, 4), keepdims=True)) * lax.rsqrt(
        groups.var((1, 2, 4), keepdims=True) + 1e-5
    )
    return normal.reshape(x.shape)


def alexnet(w: Callable[..., Array]) -> Classifier:
    """Large kernels, overlapping max-pools, dense layers with biases."""
    a, b, c, d, e = w(5, 5, 2, 4), w(3, 3, 4, 8), w(8, 8), w(8, 3), 0.1 * w(8)

    def f(x: Array) -> Array:
        x = max_pool(nn.relu(conv(x, a)), 3)
        x = max_pool(nn.relu(conv(x, b)), 3)
        return nn.relu(flat(x) @ c + e) @ d

    return f


def vgg(w: Callable[..., Array]) -> Classifier:
    """Small kernels with biases, max-pools, dense layers."""
    a, b, c, d, e = w(3, 3, 2, 4), w(3, 3, 4, 4), w(64, 6), w(6, 3), 0.1 * w(4)

    def f(x: Array) -> Array:
        x = max_pool(nn.relu(conv(nn.relu(conv(x, a) + e), b)))
        return nn.relu(flat(x) @ c) @ d

    return f


def resnet(w: Callable[..., Array], build: Callable[..., Classifier] = plain) -> Classifier:
    """BatchNorm in evaluation mode, residual sums, an average."""
    params = {}
    for path, layer in [("", a) for a in RESNET] + [("block.", a) for a in RESNET[3].main]:
        here = path + layer.name
        match layer:
            case Conv(inputs=i, features=o):
                params[here + ".weight"] = w(3, 3, i, o).transpose(3, 2, 0, 1)
            case Dense(inputs=i, features=o):
                params[here + ".weight"], params[here + ".bias"] = w(i, o).T, 0.1 * w(o)
            case BatchNorm(features=o):
                params[here + ".weight"], params[here + ".running_var"] = jnp.exp(0.2 * w(2, o))
                params[here + ".bias"], params[here + ".running_mean"] = 0.2 * w(2, o)
    return build(RESNET, params)


def pre_activation(w: Callable[..., Array]) -> Classifier:
    """BatchNorm and ReLU before each convolution, nothing after the residual sum."""
    a, b, c, d = w(3, 3, 2, 4), w(3, 3, 4, 4), w(3, 3, 4, 4), w(4, 3)
    first, second, last = (affine(w, 4) for _ in range(3))

    def f(x: Array) -> Array:
        x = conv(x, a)
        x = x + conv(nn.relu(second(conv(nn.relu(first(x)), b))), c)
        return nn.relu(last(x)).mean((1, 2)) @ d

    return f


def densenet(w: Callable[..., Array]) -> Classifier:
    """Concatenations, and average pools between blocks."""
    a, b, c, d = w(3, 3, 2, 4), w(3, 3, 4, 3), w(3, 3, 7, 3), w(10, 3)
    first, second, last = affine(w, 4), affine(w, 7), affine(w, 10)

    def f(x: Array) -> Array:
        x = conv(x, a)
        x = jnp.concatenate([x, conv(nn.relu(first(x)), b)], -1)
        x = average_pool(x)
        x = jnp.concatenate([x, conv(nn.relu(second(x)), c)], -1)
        return nn.relu(last(x)).mean((1, 2)) @ d

    return f


def inception(w: Callable[..., Array]) -> Classifier:
    """Branches of several sizes, one with a max-pool, put side by side."""
    stem, one, three, down, head = (
        w(3, 3, 2, 4),
        w(1, 1, 4, 2),
        w(3, 3, 4, 2),
        w(1, 1, 4, 2),
        w(6, 3),
    )

    def f(x: Array) -> Array:
        x = nn.relu(conv(x, stem))
        same = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
        branches = [conv(x, one), conv(x, three), conv(same, down)]
        return nn.relu(jnp.concatenate(branches, -1)).mean((1, 2)) @ head

    return f


def mobilenet(w: Callable[..., Array]) -> Classifier:
    """Inverted residuals: ReLU6, depthwise convolutions, linear bottlenecks."""
    stem, up, deep, down, head = w(3, 3, 2, 4), w(1, 1, 4, 6), w(3, 3, 1, 6), w(1, 1, 6, 4), w(4, 3)
    norms = [affine(w, n) for n in (4, 6, 6, 4)]

    def f(x: Array) -> Array:
        x = nn.relu6(norms[0](conv(x, stem, 2)))
        y = nn.relu6(norms[1](conv(x, up)))
        y = nn.relu6(norms[2](conv(y, deep, groups=6)))
        return (x + norms[3](conv(y, down))).mean((1, 2)) @ head

    return f


def squeeze_excite(w: Callable[..., Array]) -> Classifier:
    """SiLU, and channels that are weighted by a sigmoid of their means."""
    a, b, c, d = w(3, 3, 2, 4), w(4, 2), w(2, 4), w(4, 3)

    def f(x: Array) -> Array:
        x = nn.silu(conv(x, a))
        x = x * nn.sigmoid(nn.silu(x.mean((1, 2)) @ b) @ c)[:, None, None]
        return x.mean((1, 2)) @ d

    return f


def group_norm_resnet(w: Callable[..., Array]) -> Classifier:
    """Norms by the statistics of an image, residual sums."""
    a, b, d = w(3, 3, 2, 4), w(3, 3, 4, 4), w(4, 3)

    def f(x: Array) -> Array:
        x = nn.relu(group_norm(conv(x, a)))
        return nn.relu(x + group_norm(conv(x, b))).mean((1, 2)) @ d

    return f


def convnext(w: Callable[..., Array]) -> Classifier:
    """Patches, depthwise convolutions, LayerNorm, GELU, layer scale."""
    stem, deep, up, down, head = w(2, 2, 2, 4), w(3, 3, 1, 4), w(4, 8), w(8, 4), w(4, 3)
    scale = 0.5 + 0.1 * w(4)

    def f(x: Array) -> Array:
        x = layer_norm(conv(x, stem, 2))
        x = x + scale * (nn.gelu(layer_norm(conv(x, deep, groups=4)) @ up) @ down)
        return layer_norm(x.mean((1, 2))) @ head

    return f


def mixer(w: Callable[..., Array]) -> Classifier:
    """Patches as tokens, dense layers over tokens and over channels, LayerNorm."""
    stem, mix, a, b, head = w(4, 4, 2, 4), w(4, 4), w(4, 8), w(8, 4), w(4, 3)

    def f(x: Array) -> Array:
        x = conv(x, stem, 4).reshape(len(x), 4, 4)
        x = x + nn.gelu(layer_norm(x).swapaxes(1, 2) @ mix).swapaxes(1, 2)
        x = x + nn.gelu(layer_norm(x) @ a) @ b
        return layer_norm(x).mean(1) @ head

    return f


def attention(x: Array, qkv: Array, out: Array) -> Array:
    """Attend with two heads."""
    q, k, v = jnp.moveaxis((x @ qkv).reshape(*x.shape[:2], 3, 2, -1), 2, 0)
    scores = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5)
    return jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x.shape) @ out


def vit(w: Callable[..., Array], *, cls: bool) -> Classifier:
    stem, qkv, out, up, down = w(4, 4, 2, 4), w(4, 12), w(4, 4), w(4, 8), w(8, 4)
    token, place, head = w(1, 1, 4), 0.5 * w(1, 4 + cls, 4), w(4, 3)

    def f(x: Array) -> Array:
        x = conv(x, stem, 4).reshape(len(x), 4, 4)
        if cls:
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, 4)), x], 1)
        x = x + place
        x = x + attention(layer_norm(x), qkv, out)
        x = x + nn.gelu(layer_norm(x) @ up) @ down
        x = layer_norm(x)
        return (x[:, 0] if cls else x.mean(1)) @ head

    return f


def vit_cls(w: Callable[..., Array]) -> Classifier:
    """Attention among patches and a class token, LayerNorm, GELU."""
    return vit(w, cls=True)


def vit_mean(w: Callable[..., Array]) -> Classifier:
    """Attention among patches, whose mean is classified."""
    return vit(w, cls=False)


def swin(w: Callable[..., Array]) -> Classifier:
    """Attention inside windows that are shifted, LayerNorm, GELU."""
    stem, qkv, out, head = w(2, 2, 2, 4), w(4, 12), w(4, 4), w(4, 3)
    up, down = w(4, 8), w(8, 4)

    def windows(x: Array) -> Array:
        cut = x.reshape(len(x), 2, 2, 2, 2, 4).swapaxes(2, 3)
        mixed = attention(cut.reshape(-1, 4, 4), qkv, out)
        return mixed.reshape(len(x), 2, 2, 2, 2, 4).swapaxes(2, 3).reshape(x.shape)

    def f(x: Array) -> Array:
        x = conv(x, stem, 2)
        x = x + windows(layer_norm(x))
        x = x + jnp.roll(windows(jnp.roll(layer_norm(x), (-1, -1), (1, 2))), (1, 1), (1, 2))
        x = x + nn.gelu(layer_norm(x) @ up) @ down
        return layer_norm(x).mean((1, 2)) @ head

    return f


def headed(
    w: Callable[..., Array], act: Classifier, pool: Classifier, width: int = 4
) -> Classifier:
    """Return a convolution, an activation, a convolution, a ReLU, a pool, a dense layer."""
    a, b, d = w(3, 3, 2, 4), w(3, 3, width, 4), w(4, 3)
    return lambda x: pool(nn.relu(conv(act(conv(x, a)), b))) @ d


def mean(x: Array) -> Array:
    return x.mean((1, 2))


def glu(w: Callable[..., Array]) -> Classifier:
    """Half of the channels gate the others."""
    return headed(w, lambda z: nn.relu(z[..., :2]) * nn.sigmoid(z[..., 2:]), mean, 2)


def maxout(w: Callable[..., Array]) -> Classifier:
    """The larger of two channels."""
    return headed(w, lambda z: jnp.maximum(z[..., :2], z[..., 2:]), mean, 2)


def mirrored(w: Callable[..., Array]) -> Classifier:
    """An activation that is closed where others are open: `-relu(-z)`."""
    return headed(w, lambda z: -nn.relu(-z), mean)


def gem(w: Callable[..., Array]) -> Classifier:
    """Generalized means: the cube root of the mean cube."""
    return headed(w, nn.relu, lambda z: jnp.cbrt((z**3).mean((1, 2)) + 1e-4))


def root_mean_square(w: Callable[..., Array]) -> Classifier:
    """The root of the mean square."""
    return headed(w, nn.relu, lambda z: jnp.sqrt((z**2).mean((1, 2)) + 1e-4))


def standard_deviation(w: Callable[..., Array]) -> Classifier:
    """The standard deviation of each channel."""
    return headed(w, nn.relu, lambda z: jnp.sqrt(z.var((1, 2)) + 1e-4))


def normalized(w: Callable[..., Array]) -> Classifier:
    """Features divided by their length, as for metric learning."""
    unit = lambda z: z * lax.rsqrt((z**2).sum(-1, keepdims=True) + 1e-4)
    return headed(w, nn.relu, lambda z: unit(z.mean((1, 2))))


def single_positions(w: Callable[..., Array]) -> Classifier:
    """Strides down to maps of one by one."""
    a, b, c, d = w(3, 3, 2, 4), w(3, 3, 4, 6), w(3, 3, 6, 8), w(8, 3)

    def f(x: Array) -> Array:
        for kernel in (a, b, c):
            x = nn.relu(conv(x, kernel, 2) + 0.2)
        return x.mean((1, 2)) @ d

    return f


def one_logit(w: Callable[..., Array]) -> Classifier:
    """A binary classifier."""
    f = headed(w, nn.relu, mean)
    return lambda x: f(x)[:, :1]


def stacked(w: Callable[..., Array], run: Callable[..., Array]) -> Classifier:
    stem, kernels, head = w(3, 3, 2, 4), jnp.stack([w(3, 3, 4, 4), w(3, 3, 4, 4)]), w(4, 3)
    block = lambda x, kernel: nn.relu(x + conv(x, kernel))
    return lambda x: run(block, nn.relu(conv(x, stem)), kernels).mean((1, 2)) @ head


def unrolled(block: Callable[..., Array], x: Array, kernels: Array) -> Array:
    for kernel in kernels:
        x = block(x, kernel)
    return x


def blocks(w: Callable[..., Array]) -> Classifier:
    """Two blocks, one after the other."""
    return stacked(w, unrolled)


def scanned(w: Callable[..., Array]) -> Classifier:
    """Two blocks by `lax.scan`."""
    step = lambda block: lambda x, kernel: (block(x, kernel), None)
    return stacked(w, lambda block, x, kernels: lax.scan(step(block), x, kernels)[0])


def rematerialized(w: Callable[..., Array]) -> Classifier:
    """Two blocks by `jax.checkpoint`."""
    return stacked(w, lambda block, *args: unrolled(jax.checkpoint(block), *args))


def branched(w: Callable[..., Array]) -> Classifier:
    """Two blocks by `lax.cond`, whose predicate does not depend on the image."""
    choice = lambda block: lambda x, k: lax.cond(k.size > 0, block, lambda x, k: x, x, k)
    return stacked(w, lambda block, *args: unrolled(choice(block), *args))


def vmapped(w: Callable[..., Array]) -> Classifier:
    """Image by image, by `jax.vmap`."""
    f = blocks(w)
    return jax.vmap(lambda image: f(image[None])[0])


WRITTEN = {
    f"ResNet in {key.upper() if key == 'nnx' else key.title()}": build
    for key, build in FRAMEWORKS.items()
}
ARCHITECTURES: dict[str, Callable[..., Classifier]] = {
    "AlexNet": alexnet,
    "VGG": vgg,
    "ResNet": resnet,
    **{name: partial(resnet, build=build) for name, build in WRITTEN.items()},
    "pre-activation ResNet": pre_activation,
    "DenseNet": densenet,
    "Inception": inception,
    "MobileNetV2": mobilenet,
    "squeeze and excitation": squeeze_excite,
    "GroupNorm ResNet": group_norm_resnet,
    "ConvNeXt": convnext,
    "MLP-Mixer": mixer,
    "ViT, class token": vit_cls,
    "ViT, mean": vit_mean,
    "Swin": swin,
    "gated linear unit": glu,
    "maxout": maxout,
    "mirrored ReLU": mirrored,
    "generalized-mean pool": gem,
    "root-mean-square pool": root_mean_square,
    "standard-deviation pool": standard_deviation,
    "normalized features": normalized,
    "maps of one position": single_positions,
    "one logit": one_logit,
    "residual blocks": blocks,
    "scan": scanned,
    "remat": rematerialized,
    "cond": branched,
    "vmap": vmapped,
}
"""Architectures by the names in the table of docs/architectures.md."""

SAME = dict.fromkeys(WRITTEN, "ResNet")
SAME |= dict.fromkeys(("scan", "remat", "cond", "vmap"), "residual blocks")
"""Networks that are another one, spelled otherwise."""


def build(name: str) -> Classifier:
    """Return an architecture with weights that are always the same."""
    return ARCHITECTURES[name](draw(0))


def description(name: str) -> str:
    """Return what is in an architecture."""
    made: Any = ARCHITECTURES[name]
    return str(getattr(made, "func", made).__doc__).partition("\n")[0]
