"""Data sets by name, each a sequence of records."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from jaxattr.data.records import Record

SCHEMES = {
    "tfds": ("tfds", "a data set of TensorFlow Datasets: tfds:imagenet_v2"),
    "folder": ("image_folders", "a folder of images: folder:PATH"),
    "voc": ("voc", "a folder of PASCAL VOC: voc:VOCdevkit/VOC2007"),
    "coco": ("coco", "a folder of images with its JSON: coco:PATH"),
    "segmentation": ("imagenet_segmentation", "segmentation:gtsegs_ijcv.mat"),
    "skimage": ("skimage_photographs", "the photographs of scikit-image: skimage:all"),
    "shapes": ("shapes", "drawn shapes with known truth: shapes:1000"),
    "parquet": ("parquet", "parquet shards with images: parquet:PATH"),
}
"""What stands before the colon: the module that reads it, and what it is for."""


@dataclass(frozen=True)
class Source:
    """A data set: `len(source)` records, read one at a time by `source[i]`.

    Attributes:
        name: as `open_source` takes it.
        classes: names of the classes, in the order of the labels.
        keys: what `read` takes, one for each record.
        read: reads a record.
        read_labels: reads the labels of a record alone, where that is cheaper.
    """

    name: str
    classes: tuple[str, ...]
    keys: Sequence[Any]
    read: Callable[[Any], Record]
    read_labels: Callable[[Any], Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Record:
        return self.read(self.keys[index])

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record, without its image where that can be left out."""
        key = self.keys[index]
        found = self.read(key).labels if self.read_labels is None else self.read_labels(key)
        return tuple(int(label) for label in found)

    def __iter__(self) -> Iterator[Record]:
        return map(self.read, self.keys)


def with_classes(source: Source, classes: Sequence[str]) -> Source:
    """Number the labels of a data set as a model numbers its classes.

    Names are matched in any case; labels that are numbers already are kept.

    Args:
        source: a data set.
        classes: names of a model's classes, in the order of its logits.

    Raises:
        ValueError: if the data set has a class that the model has not.

    Example:
        >>> source = Source("mine", ("dog", "cat"), (), lambda key: key, lambda key: (0,))
        >>> with_classes(source, ("cat", "Dog", "fish")).read_labels(None)
        (1,)
    """
    if source.classes == tuple(classes):
        return source
    if all(name.isdecimal() and int(name) < len(classes) for name in source.classes):
        return replace(source, classes=tuple(classes))
    at = {name.casefold(): i for i, name in enumerate(classes)}
    strange = [name for name in source.classes if name.casefold() not in at]
    if strange:
        near = difflib.get_close_matches(strange[0].casefold(), at)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise ValueError(
            f"{len(strange)} of the {len(source.classes)} classes of {source.name} are none of the "
            f"model's {len(classes)}, the first is {strange[0]!r}{hint}"
        )
    number = np.array([at[name.casefold()] for name in source.classes])
    read_labels = source.read_labels

    def read(key: Any) -> Record:
        found = source.read(key)
        labels = number[found.labels]
        order = np.argsort(labels)
        masks = None if found.masks is None else found.masks[order]
        boxed = number[found.box_labels]
        return found._replace(labels=labels[order], box_labels=boxed, masks=masks)

    def read_numbers(key: Any) -> tuple[int, ...]:
        found = source.read(key).labels if read_labels is None else read_labels(key)
        return tuple(sorted(int(number[label]) for label in found))

    return Source(source.name, tuple(classes), source.keys, read, read_numbers)


def open_source(name: str, *, split: str | None = None) -> Source:
    """Open a data set.

    Args:
        name: what kind of data set it is, a colon, and its name or path; `SCHEMES` lists them.
        split: which part of it, where it has several; by default the one that results are
            reported on.

    Raises:
        ValueError: if there is no such kind of data set, or no such split.
        FileNotFoundError: if its files are missing. The message says what to fetch and where.
        ModuleNotFoundError: if a package that reads it is not installed.

    Example:
        >>> open_source("cloud:mine")
        Traceback (most recent call last):
        ...
        ValueError: 'cloud:mine' names no data set; the kinds are tfds, folder, voc, coco, \
segmentation, skimage, shapes, parquet, as in tfds:imagenet_v2
    """
    scheme, colon, rest = name.partition(":")
    if scheme not in SCHEMES or not colon or not rest:
        near = difflib.get_close_matches(scheme, SCHEMES)
        hint = f" (did you mean {near[0]}:?)" if near and scheme not in SCHEMES else ""
        raise ValueError(
            f"{name!r} names no data set{hint}; the kinds are {', '.join(SCHEMES)}, as in "
            "tfds:imagenet_v2"
        )
    module = import_module(f"jaxattr.data.{SCHEMES[scheme][0]}")
    return module.source(rest, split=split)
