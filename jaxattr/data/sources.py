"""Data sets by name, each a sequence of records."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from jaxattr.data.records import Record

SCHEMES = {
    "tfds": ("tfds", "a data set of TensorFlow Datasets: tfds:imagenet_v2"),
    "folder": ("image_folders", "a folder of images: folder:PATH"),
    "voc": ("voc", "a folder of PASCAL VOC: voc:VOCdevkit/VOC2007"),
    "coco": ("coco", "a folder of images with its JSON: coco:PATH"),
    "segmentation": ("imagenet_segmentation", "segmentation:gtsegs_ijcv.mat"),
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
    """

    name: str
    classes: tuple[str, ...]
    keys: Sequence[Any]
    read: Callable[[Any], Record]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Record:
        return self.read(self.keys[index])

    def __iter__(self) -> Iterator[Record]:
        return map(self.read, self.keys)


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
segmentation, parquet, as in tfds:imagenet_v2
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
