"""PASCAL VOC, and ImageNet's boxes, which have the same format."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxattr.data.classes import VOC
from jaxattr.data.images import read_image, read_indices
from jaxattr.data.objects import read_objects
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

ADDRESS = "http://host.robots.ox.ac.uk/pascal/VOC/"
VOID = 255
"""What the borders of objects are in the segmentations."""


def source(path: str, *, split: str | None = None) -> Source:
    """Open a year of PASCAL VOC as published: `JPEGImages`, `Annotations`, `ImageSets/Main`.

    Where `SegmentationClass` has an image, its classes have masks: a class that only the
    segmentation has is a label too, one that it lacks has no pixels.

    Args:
        path: the folder of a year, `VOCdevkit/VOC2007`.
        split: a file of `ImageSets/Main`; by default `test`, else `val`; all annotations where
            there are no such files.

    Raises:
        FileNotFoundError: if a folder or file is missing; the message says where to fetch it.
        ValueError: if there is no such split.
    """
    folder = Path(path)
    for part in ("JPEGImages", "Annotations"):
        if not (folder / part).is_dir():
            years = sorted(p.name for p in folder.glob("VOC2*"))
            hint = f"give one of its years, voc:{folder / years[-1]}" if years else f"see {ADDRESS}"
            raise FileNotFoundError(f"there is no folder {folder / part}: {hint}")
    sets = {p.stem: p for p in sorted((folder / "ImageSets" / "Main").glob("*.txt"))}
    chosen = split or next((s for s in ("test", "val") if s in sets), None)
    if chosen is None:
        ids = sorted(p.stem for p in (folder / "Annotations").glob("*.xml"))
    elif chosen in sets:
        ids = [line.split()[0] for line in sets[chosen].read_text().splitlines() if line.strip()]
    else:
        has = ", ".join(s for s in sets if "_" not in s) or "none"
        raise ValueError(f"voc:{path} has no split {chosen!r}; it has {has}")
    read_labels = lambda id: _annotated(folder, id)["labels"]
    return Source(f"voc:{path}", VOC, ids, partial(_read, folder), read_labels)


def _read(folder: Path, id: str) -> Record:
    return record(id, read_image(folder / "JPEGImages" / f"{id}.jpg"), **_annotated(folder, id))


def _annotated(folder: Path, id: str) -> dict[str, Any]:
    """Return all of a record but its image."""
    path = folder / "Annotations" / f"{id}.xml"
    try:
        found = read_objects(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    of_boxes = [VOC.index(label) for label in found.labels]
    segments = folder / "SegmentationClass" / f"{id}.png"
    labels, masks, void = np.unique(of_boxes).astype(int), None, None
    if segments.exists():
        pixels = read_indices(segments)
        of_pixels = [int(v) - 1 for v in np.unique(pixels) if v not in (0, VOID)]
        labels = np.unique([*of_pixels, *of_boxes]).astype(int)
        masks, void = pixels == labels[:, None, None] + 1, pixels == VOID
    return {
        "labels": labels,
        "boxes": found.boxes,
        "box_labels": of_boxes,
        "difficult": found.difficult,
        "masks": masks,
        "void": void,
    }
