"""Plain folders of images, with a table of labels or a folder for each class."""

import csv
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxattr.data.classes import IMAGENET, SYNSETS
from jaxattr.data.images import SUFFIXES, read_image, read_indices
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

COLUMNS = ("labels", "label", "class_index", "class", "wnid", "name")
"""Names of the column that holds the labels, the first that a table has."""


class _Row(NamedTuple):
    """An image of a table: its file, its labels by name or number, and what else is known."""

    file: Path
    labels: tuple[str, ...]
    boxes: tuple[tuple[int, ...], ...] = ()
    box_labels: tuple[str, ...] = ()
    difficult: tuple[bool, ...] | None = None
    mask: Path | None = None


def source(path: str, *, split: str | None = None) -> Source:
    """Open a folder of images.

    - With a table in it (the only `.csv` or `.jsonl`), or given a table: a row an image, with its
      `file` beside the table and its label in one of `COLUMNS`, a number or a name; several are
      separated by `;`, or a list in JSON. JSON lines may have `boxes` (first row, first column,
      end row, end column), `box_labels`, `difficult`, and `mask`, a PNG in which class `c` is
      `c + 1`, 0 is none and 255 is void, as PASCAL VOC's.
    - With folders in it: each is a class. Folders named by ImageNet's synsets (`n01440764`) are
      its classes.
    - With neither: images without labels.

    Images are ordered by name, or as the table has them; classes that are named are ordered by
    name, numbers are kept.

    Args:
        path: the folder, or the table.
        split: a folder in it.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: if the table cannot be read. The message has the line.
    """
    given = Path(path) / (split or "")
    if not given.exists():
        siblings = sorted(p.name for p in given.parent.iterdir()) if given.parent.is_dir() else []
        raise FileNotFoundError(f"there is no folder {given}; beside it: {siblings[:9]}")
    tables = [given] if given.is_file() else sorted(_with_suffix(given, (".csv", ".jsonl")))
    if len(tables) > 1:
        names = ", ".join(t.name for t in tables)
        raise ValueError(f"{given} has several tables ({names}): give the path of one")
    rows = _table(tables[0]) if tables else _tree(given)
    if not rows:
        raise FileNotFoundError(f"there is no image ({', '.join(SUFFIXES)}) in {given}")
    classes, number = _classes(label for row in rows for label in (*row.labels, *row.box_labels))
    read_labels = lambda row: sorted({number[k] for k in (*row.labels, *row.box_labels)})
    return Source(f"folder:{path}", classes, rows, partial(_read, number), read_labels)


def _read(number: Mapping[str, int], row: _Row) -> Record:
    labels, box_labels = ([number[k] for k in names] for names in (row.labels, row.box_labels))
    image = read_image(row.file)
    masks, void = None, None
    if row.mask is not None:
        every = np.unique([*labels, *box_labels]).astype(int)
        pixels = read_indices(row.mask)
        masks, void = pixels == every[:, None, None] + 1, pixels == 255
    return record(
        row.file.name,
        image,
        labels=labels,
        boxes=row.boxes,
        box_labels=box_labels,
        difficult=row.difficult,
        masks=masks,
        void=void,
    )


def _with_suffix(folder: Path, suffixes: tuple[str, ...]) -> Iterable[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() in suffixes)


def _tree(folder: Path) -> list[_Row]:
    """List the images of a folder, or of the folders in it, which are their classes."""
    found = [_Row(p, ()) for p in sorted(_with_suffix(folder, SUFFIXES))]
    if found:
        return found
    inner = sorted(p for p in folder.iterdir() if p.is_dir())
    return [_Row(p, (f.name,)) for f in inner for p in sorted(_with_suffix(f, SUFFIXES))]


def _table(path: Path) -> list[_Row]:
    rows = []
    with path.open(newline="") as file:
        lines = map(json.loads, file) if path.suffix.lower() == ".jsonl" else csv.DictReader(file)
        try:
            for values in lines:
                rows.append(_row(path, values))
        except (ValueError, KeyError, TypeError) as error:
            # of JSON the line begins at 1; CSV's header is a line too
            line = len(rows) + 1 + (path.suffix.lower() != ".jsonl")
            raise ValueError(f"line {line} of {path} cannot be read: {error}") from None
    return rows


def _row(path: Path, values: Mapping[str, Any]) -> _Row:
    if not values.get("file"):
        raise ValueError(f"it has no `file`, but {', '.join(map(str, values))}")
    column = next((c for c in COLUMNS if c in values), None)
    mask = values.get("mask")
    return _Row(
        path.parent / values["file"],
        _labels(values[column]) if column else (),
        tuple(tuple(map(int, b)) for b in values.get("boxes") or ()),
        _labels(values.get("box_labels")),
        None if values.get("difficult") is None else tuple(map(bool, values["difficult"])),
        path.parent / mask if mask else None,
    )


def _labels(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(";"))
    return tuple(map(str, value if isinstance(value, list) else [value]))


def _classes(labels: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of the classes, and the number of each label."""
    found = sorted(set(labels))
    if found and set(found) <= set(SYNSETS):
        return IMAGENET, {k: SYNSETS.index(k) for k in found}
    if all(k.isdecimal() for k in found):
        number = {k: int(k) for k in found}
        return tuple(map(str, range(max(number.values(), default=-1) + 1))), number
    return tuple(found), {k: i for i, k in enumerate(found)}
