"""Photographs of PASCAL VOC for a classifier of ImageNet, or of VOC's own classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxattr import metrics
from jaxattr.data import open_source
from jaxattr.data.classes import VOC_IN_IMAGENET

SIZE = 224
"""To which photographs are squashed, in pixels."""


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
    source = open_source(f"voc:{folder}")
    for record in source:
        found = metrics.record_annotation(record, source.classes)
        yield Photograph(
            record.id, Image.fromarray(record.image), tuple(o for o in found.objects if o.counts)
        )


def likeliest(logits: np.ndarray, label: str) -> int:
    """Return the class of a label, of ImageNet's that belong to it the one of the largest logit."""
    if len(logits) == len(metrics.VOC_CLASSES):
        return metrics.VOC_CLASSES.index(label)
    return max(VOC_IN_IMAGENET[label], key=lambda c: logits[c])
