"""COCO: images beside a JSON file of all their objects."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxattr.data.images import read_image
from jaxattr.data.objects import coco_boxes, coco_masks
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

ADDRESS = "https://cocodataset.org/#download"


def source(path: str, *, split: str | None = None) -> Source:
    """Open COCO as published: folders of images, `annotations/instances_<split>.json` beside them.

    Classes are the categories in the order of their numbers, in which some are missing: of COCO's
    80 the last, `toothbrush`, is category 90. Masks are the union of a category's polygons and
    run-length codes, crowds included; they need `pycocotools`. Records are in the order of their
    numbers; images without objects have no labels.

    Args:
        path: the folder that holds `annotations`.
        split: by default `val2014`, on which pointing games are reported, if it is there, else
            the first that is.

    Raises:
        FileNotFoundError: if a file is missing; the message says where to fetch it.
        ValueError: if the JSON is not such a file.
    """
    folder = Path(path) / "annotations"
    found = {p.stem.removeprefix("instances_"): p for p in sorted(folder.glob("instances_*.json"))}
    if not found:
        raise FileNotFoundError(
            f"there is no {folder}/instances_*.json: fetch annotations and images from {ADDRESS}"
        )
    chosen = split or ("val2014" if "val2014" in found else next(iter(found)))
    if chosen not in found:
        raise ValueError(f"coco:{path} has no split {chosen!r}; it has {', '.join(found)}")
    if not (Path(path) / chosen).is_dir():
        raise FileNotFoundError(
            f"there is no folder {Path(path) / chosen} of images: fetch it from {ADDRESS}"
        )
    try:
        content = json.loads(found[chosen].read_text())
        categories = sorted(content["categories"], key=lambda c: c["id"])
        images = sorted(content["images"], key=lambda i: i["id"])
        objects: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in images}
        for item in content["annotations"]:
            objects[item["image_id"]].append(item)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{found[chosen]} is no file of COCO's objects: {error!r}") from None
    number = {c["id"]: i for i, c in enumerate(categories)}
    keys = [(image["file_name"], objects[image["id"]]) for image in images]
    read = partial(_read, Path(path) / chosen, number)
    read_labels = lambda key: sorted({number[item["category_id"]] for item in key[1]})
    names = tuple(c["name"] for c in categories)
    return Source(f"coco:{path}", names, keys, read, read_labels)


def _read(
    folder: Path, number: Mapping[int, int], key: tuple[str, Sequence[Mapping[str, Any]]]
) -> Record:
    name, found = key
    image = read_image(folder / name)
    masks = coco_masks(found, image.shape[:2])
    boxes = coco_boxes(found)
    ordered = sorted(masks, key=number.__getitem__)
    return record(
        Path(name).stem,
        image,
        boxes=np.concatenate([boxes[c] for c in ordered]) if ordered else (),
        box_labels=[number[c] for c in ordered for _ in boxes[c]],
        masks=np.stack([masks[c] for c in ordered]) if ordered else None,
    )
