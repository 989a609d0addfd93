"""A trained model, with what it takes to feed it and to read its answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
from flax import nnx

from jaxattr.data import classes as class_names
from jaxattr.models import (
    alex_net,
    caffe,
    cifar_resnet,
    convnext,
    densenet,
    efficientnet,
    efficientnet_lite,
    inception,
    inception_v1,
    mobilenet,
    mobilenet_v3,
    regnet,
    resnet,
    small_cnn,
    small_vit,
    squeezenet,
    swin_transformer,
    vgg,
    vision_transformer,
)
from jaxattr.models.blocks import Classifier
from jaxattr.models.hub import Beside, beside
from jaxattr.models.preprocess import PlainResize, Preprocess
from jaxattr.models.published import find, locate
from weights_conversion import (
    Checkpoint,
    OrbaxFolder,
    Rename,
    Shards,
    classifier,
    open_checkpoint,
    problems,
    renaming,
    restore_or_convert,
    torch_name,
    without_prefix,
)

_LOG = logging.getLogger(__name__)

BUILDERS: dict[str, Callable[..., Classifier]] = {
    build.__name__: build
    for build in (
        efficientnet_lite.efficientnet_lite0,
        efficientnet_lite.efficientnet_lite1,
        efficientnet_lite.efficientnet_lite2,
        efficientnet_lite.efficientnet_lite3,
        efficientnet_lite.efficientnet_lite4,
        vgg.vgg11,
        vgg.vgg11_bn,
        vgg.vgg13,
        vgg.vgg13_bn,
        vgg.vgg16,
        vgg.vgg16_bn,
        vgg.vgg19,
        vgg.vgg19_bn,
        resnet.resnet18,
        resnet.resnet34,
        resnet.resnet50,
        resnet.resnet101,
        resnet.resnet152,
        resnet.resnext50_32x4d,
        resnet.resnext101_32x8d,
        resnet.resnext101_64x4d,
        resnet.wide_resnet50_2,
        resnet.wide_resnet101_2,
        convnext.convnext_tiny,
        convnext.convnext_small,
        convnext.convnext_base,
        convnext.convnext_large,
        vision_transformer.vit_b_16,
        vision_transformer.vit_b_32,
        vision_transformer.vit_l_16,
        swin_transformer.swin_t,
        mobilenet.mobilenet_v2,
        mobilenet_v3.mobilenet_v3_large,
        mobilenet_v3.mobilenet_v3_small,
        efficientnet.efficientnet_b0,
        efficientnet.efficientnet_b1,
        efficientnet.efficientnet_b2,
        efficientnet.efficientnet_b3,
        efficientnet.efficientnet_b4,
        efficientnet.efficientnet_b5,
        efficientnet.efficientnet_b6,
        efficientnet.efficientnet_b7,
        densenet.densenet121,
        densenet.densenet161,
        densenet.densenet169,
        densenet.densenet201,
        inception.inception_v3,
        inception_v1.googlenet,
        alex_net.alexnet,
        squeezenet.squeezenet1_0,
        squeezenet.squeezenet1_1,
        regnet.regnet_y_400mf,
        regnet.regnet_y_800mf,
        regnet.regnet_y_1_6gf,
        regnet.regnet_y_3_2gf,
        regnet.regnet_y_8gf,
        regnet.regnet_y_16gf,
        regnet.regnet_y_32gf,
        cifar_resnet.cifar_resnet20,
        cifar_resnet.cifar_resnet32,
        cifar_resnet.cifar_resnet44,
        cifar_resnet.cifar_resnet56,
        caffe.vgg16_voc07,
        caffe.vgg16_coco14,
        caffe.resnet50_voc07,
        caffe.resnet50_coco14,
        small_cnn.mnist_cnn,
        small_cnn.cifar_cnn,
        small_cnn.cifar_vgg16,
        small_vit.cifar_vit,
    )
}


class Pretrained(NamedTuple):
    """A model in evaluation mode, its preprocessing, and the names of its classes."""

    model: Classifier
    preprocess: Preprocess | PlainResize
    classes: tuple[str, ...]


def names() -> tuple[str, ...]:
    """Return the names of all models."""
    return tuple(BUILDERS)


def skeleton(name: str, *, classes: int | None = None) -> Classifier:
    """Build a model that has shapes in place of weights, which takes no memory.

    Raises:
        ValueError: If there is no model of that name; the message has the nearest names.
    """
    if name not in BUILDERS:
        near = get_close_matches(name, BUILDERS) or BUILDERS
        raise ValueError(f"there is no model {name!r}; did you mean {', '.join(near)}?")
    # Tracing the counter of `nnx.Rngs` is quadratic in the number of layers.
    same_key = SimpleNamespace(params=lambda: jax.random.key(0))
    options = {} if classes is None else {"classes": classes}
    return nnx.eval_shape(lambda: BUILDERS[name](rngs=same_key, **options))


def load(
    name: str,
    *,
    weights: str | None = None,
    path: str | PathLike[str] | None = None,
    key: str | None = None,
    ema: bool = True,
    rename: Rename | None = None,
    classes: Sequence[str] | None = None,
    dtype: Any = None,
) -> Pretrained:
    """Load a trained model.

    The weights are read without torch, downloaded or taken from an installed package if they are
    not given, and kept converted in the cache, so that a second load is quick.

    Args:
        name: A model's name, see `names`.
        weights: The name of published weights, e.g. "IMAGENET1K_V1"; by default the best. With
            `path`, the ones whose preprocessing the file was trained with; by default what
            `config.json` or `preprocessor_config.json` beside the file says, as timm and Hugging
            Face write them, else those of the same file name, else the model's first.
        path: A checkpoint of this architecture, with any number of classes: torch's formats or
            safetensors, a state dict or a training checkpoint that holds one, or the index of
            several files; or the folder of an Orbax checkpoint of an NNX state. A classifier of
            another name is found by its shape.
        key: Where the state dict is in it, as `"teacher"`; by default under its usual names.
        ema: Whether an average of the weights over training is preferred, where there is one.
        rename: From the checkpoint's keys to those of the model's published files, where they
            differ: a function, or a dict from how keys begin to what they become.
        classes: Names of the classes, where a checkpoint has its own that `config.json` beside it
            does not list.
        dtype: Type of the parameters, e.g. `jnp.bfloat16`; by default float32.

    Returns:
        `(model, preprocess, classes)`: a module that takes `(B, H, W, 3)`; a function from a PIL
        image to `(H, W, 3)`, whose `display` gives the photograph the model sees; class names.

    Raises:
        ValueError: If there is no such model or weights, a checkpoint does not fit (the first keys
            that do not are listed), or `classes` has the wrong length.
        ModuleNotFoundError: If the package that carries the weights is not installed.
        OSError: If they cannot be downloaded or read.

    Example:
        A photograph's class::

            model, preprocess, classes = load("efficientnet_lite0")
            logits = model(preprocess(Image.open("cat.jpg"))[None])
            print(classes[logits.argmax()])
    """
    model = skeleton(name)
    entry = find(name, weights, file=None if path is None else Path(path).name)
    renamed, count, told = model.torch.rename, len(entry.classes), Beside(None, None)
    if path is None:
        path = locate(entry)
    else:
        told = beside(path)
        checkpoint = open_checkpoint(path, key=key, ema=ema)
        key = checkpoint.key  # said once
        renamed, found = _adapt(checkpoint, model, rename)
        count = found or count
    if count != len(entry.classes):
        model = skeleton(name, classes=count)
    if classes is not None and len(classes) != count:
        raise ValueError(f"{path} has {count} classes, but `classes` has {len(classes)} names")
    state = restore_or_convert(
        path,
        model,
        name=name,
        key=key,
        ema=ema,
        rename=renamed,
        flatten=model.torch.flatten,
        dtype=dtype,
    )
    nnx.update(model, state)
    preprocess = told.preprocess if weights is None else None
    known = told.classes if told.classes and len(told.classes) == count else entry.classes
    return Pretrained(
        model,
        preprocess or entry.preprocess,
        class_names.names(count, known) if classes is None else tuple(classes),
    )


def misfits(
    name: str,
    path: str | PathLike[str],
    *,
    key: str | None = None,
    ema: bool = True,
    rename: Rename | None = None,
) -> list[str]:
    """Return all that does not fit between a checkpoint and a model, a line each.

    Args:
        name: The model's.
        path: As for `load`.
        key: As for `load`.
        ema: As for `load`.
        rename: As for `load`.
    """
    model = skeleton(name)
    checkpoint = open_checkpoint(path, key=key, ema=ema)
    renamed, count = _adapt(checkpoint, model, rename)
    if count is not None:
        model = skeleton(name, classes=count)
    return problems(checkpoint, model, rename=renamed, flatten=model.torch.flatten)


def _adapt(
    checkpoint: Checkpoint | Shards | OrbaxFolder, model: Classifier, rename: Rename | None
) -> tuple[Rename | None, int | None]:
    """Return how a checkpoint's keys become the model's, and how many classes it has."""
    layout = model.torch
    published, given = layout.rename or (lambda k: k), renaming(rename)
    variables = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    own = {torch_name(p): v.shape for p, v in variables}
    shapes = checkpoint.shapes
    names = without_prefix(shapes, own, lambda k: published(given(k)))
    width = own[f"{layout.last}.weight"][0]
    last = classifier(names, shapes, own, last=layout.last, width=width)
    if last is None:
        return published if rename is None else names, None
    count = next(shapes[k][0] for k, n in names.items() if n == f"{last}.weight")
    if last == layout.last:
        return published if rename is None else names, count
    _LOG.warning(
        "%s: its layer %r is taken for the classifier, of %d classes", checkpoint.path, last, count
    )
    moved = renaming({f"{last}.": f"{layout.last}."})
    return {k: moved(n) for k, n in names.items()}, count
