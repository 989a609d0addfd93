"""How many real test images do the loaded models get right, and is it what torch gets?

    python benchmarks/accuracy.py DATA

DATA holds `photos` (ImageNet photographs of short side 256, with `labels.csv`), `cifar10_webp.zip`
and `cifar_resnets` (`resnet20-12fca82f.th` and its siblings). Models whose package or file is
missing are left out. The models run as jaxattr reads them, lowered for the CPU.

"torch %" is what torch gets on the same images (EfficientNet-Lite) or what was published (CIFAR).
Seconds on 2 cores that other work kept busy:

    model                  right      of       %   torch %   seconds
    efficientnet_lite0       612     700   87.43     87.43      34.9
    efficientnet_lite1       615     700   87.86     87.86      34.1
    efficientnet_lite2       612     700   87.43     87.43      64.2
    cifar_resnet20          9173   10000   91.73     91.73      33.0
    cifar_resnet32          9263   10000   92.63     92.63      57.1
    cifar_resnet44          9310   10000   93.10     93.10      73.7
    cifar_resnet56          9339   10000   93.39     93.39     117.5
"""

import zipfile
from argparse import ArgumentParser
from collections.abc import Iterator
from csv import DictReader
from io import BytesIO
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxattr import lowered
from jaxattr.models import PUBLISHED, Preprocess, Pretrained, load, local_path

# On these photographs, most of them training images, not on ImageNet's validation set.
TORCH = {"efficientnet_lite0": 87.43, "efficientnet_lite1": 87.86, "efficientnet_lite2": 87.43}

Labeled = Iterator[tuple[Image.Image, int]]


class Score(NamedTuple):
    """How a model did on a set of images."""

    right: int
    images: int
    seconds: float


def photographs(data: Path) -> Labeled:
    """Open the photographs of ImageNet."""
    with (data / "photos" / "labels.csv").open() as file:
        for row in DictReader(file):
            yield Image.open(data / "photos" / row["file"]), int(row["class_index"])


def cifar10(data: Path) -> Labeled:
    """Open the 10,000 test images of CIFAR-10, 500 in a strip."""
    with zipfile.ZipFile(data / "cifar10_webp.zip") as archive:
        labels = np.load(BytesIO(archive.read("test_labels.npy")))
        for strip in range(20):
            image = Image.open(BytesIO(archive.read(f"test/{strip:03}.webp"))).convert("RGB")
            pixels = np.asarray(image).reshape(500, 32, 32, 3)
            for index in range(500):
                yield Image.fromarray(pixels[index]), int(labels[500 * strip + index])


def sample(
    data: Path, network: str, images: int, path: Path | None = None
) -> tuple[Pretrained, np.ndarray, np.ndarray]:
    """Load a network, and every k-th of the images that it is tested on, with their classes.

    Args:
        data: as in the command above.
        network: `cifar_resnet20`, or another of CIFAR-10 or ImageNet.
        images: how many.
        path: of the weights, where they are not a package or a file of DATA.
    """
    cifar = network.startswith("cifar")
    files = sorted((data / "cifar_resnets").glob(f"{network[6:]}-*.th"))
    pretrained = load(network, path=path or (files[0] if cifar else None))
    source, every = (
        (cifar10(data), 10_000 // images) if cifar else (photographs(data), 700 // images)
    )
    chosen = list(islice(source, 0, every * images, every))
    x = np.stack([pretrained.preprocess(image) for image, _ in chosen])
    return pretrained, x, np.array([label for _, label in chosen])


def batches(labeled: Labeled, preprocess: Preprocess, size: int) -> Iterator[tuple]:
    """Stack preprocessed images; the last batch is filled with black images of class -1."""
    shape = (size, preprocess.crop_size, preprocess.crop_size, 3)
    while True:
        x, labels = np.zeros(shape, np.float32), np.full(size, -1)
        for index, (image, label) in zip(range(size), labeled, strict=False):
            x[index], labels[index] = preprocess(image), label
        if labels[0] < 0:
            return
        yield x, labels


def score(pretrained: Pretrained, labeled: Labeled, size: int) -> Score:
    """Count the images whose largest logit is that of their class."""
    forward = jax.jit(lambda model, x: lowered(model)(x).argmax(-1))
    right = images = 0
    start = perf_counter()
    for x, labels in batches(labeled, pretrained.preprocess, size):
        right += int((np.asarray(forward(pretrained.model, x)) == labels).sum())
        images += int((labels >= 0).sum())
    return Score(right, images, perf_counter() - start)


def main() -> None:
    """Print one row per model."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    print(f"{'model':20} {'right':>7} {'of':>7} {'%':>7} {'torch %':>9} {'seconds':>9}")
    for entry in PUBLISHED:
        cifar = entry.model.startswith("cifar")
        path = data / "cifar_resnets" / entry.filename if cifar else local_path(entry)
        if path is None or not path.exists():
            continue
        pretrained = load(entry.model, path=path)
        labeled, size = (cifar10(data), 500) if cifar else (photographs(data), 20)
        right, images, seconds = score(pretrained, labeled, size)
        torch = entry.top1 if cifar else TORCH.get(entry.model, float("nan"))
        row = f"{entry.model:20} {right:7} {images:7} {100 * right / images:7.2f} {torch:9.2f}"
        print(f"{row} {seconds:9.1f}", flush=True)


if __name__ == "__main__":
    main()
