"""Photographs of PASCAL VOC for a classifier of ImageNet."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxattr import metrics

SIZE = 224
"""To which photographs are squashed, in pixels."""

CLASSES: dict[str, tuple[int, ...]] = {
    "aeroplane": (404, 895),
    "bicycle": (444, 671),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "boat": (472, 484, 554, 576, 625, 628, 724, 780, 814, 871, 914),
    "bottle": (440, 720, 737, 898, 907),
    "bus": (654, 779, 874),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 717, 751, 817),
    "cat": tuple(range(281, 286)),
    "chair": (423, 559, 765),
    "cow": (345, 346, 347),
    "diningtable": (532,),
    "dog": tuple(range(151, 269)),
    "horse": (339,),
    "motorbike": (665, 670),
    "person": (445, 515, 518, 578, 601, 608, 610, 655, 834, 837, 841, 842, 869, 981, 982, 983),
    "pottedplant": (738,),
    "sheep": (348, 349),
    "sofa": (831,),
    "train": (466, 547, 705, 820, 829),
    "tvmonitor": (664, 782, 851),
}
"""The ImageNet classes that belong to a VOC class; a person is known by what people wear."""


class Photograph(NamedTuple):
    """A photograph with its objects.

    Attributes:
        name: of its files, without their endings.
        image: as it is.
        objects: of the classes that count.
    """

    name: str
    image: Image.Image
    objects: tuple[metrics.Object, ...]


def photographs(folder: Path) -> Iterator[Photograph]:
    """Read the photographs of `folder`, by name."""
    for path in sorted((folder / "Annotations").glob("*.xml")):
        found = metrics.voc_annotation(path.read_text())
        objects = tuple(o for o in found.objects if o.counts and o.label in CLASSES)
        image = Image.open(folder / "JPEGImages" / f"{path.stem}.jpg").convert("RGB")
        yield Photograph(path.stem, image, objects)


def likeliest(logits: np.ndarray, label: str) -> int:
    """Return the ImageNet class of the largest logit among those of a VOC class."""
    return max(CLASSES[label], key=lambda c: logits[c])
