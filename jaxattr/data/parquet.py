"""Parquet shards with encoded images, as on the Hugging Face hub."""

from bisect import bisect_right
from functools import lru_cache
from json import loads
from pathlib import Path
from typing import Any

from jaxattr.data.images import decode_image
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

IMAGES, LABELS = ("image", "img", "jpg", "png", "webp"), ("label", "labels", "fine_label", "cls")
"""Names of the columns that are looked for, in this order."""


def source(path: str, *, split: str | None = None) -> Source:
    """Open one parquet file, or a folder of shards in the order of their names.

    A column of images holds the bytes of a file, alone or beside its path; labels are integers,
    or lists of them. The names of the classes are those that the hub's libraries write into a
    file, else the numbers.

    Args:
        path: the file or the folder.
        split: shards whose names begin with it, as `validation` in
            `validation-00000-of-00014.parquet`.

    Raises:
        FileNotFoundError: if there are no shards.
        ValueError: if there is no column of images.
        ModuleNotFoundError: without `pyarrow`.
    """
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "parquet files are read by pyarrow, which is not installed: "
            'pip install "jaxattr[data]"',
            name="pyarrow",
        ) from None
    given = Path(path)
    shards = [given] if given.is_file() else sorted(given.rglob(f"{split or ''}*.parquet"))
    if not shards:
        named = f" whose name begins with {split!r}" if split else ""
        raise FileNotFoundError(f"there is no parquet file{named} in {path}")
    files = [parquet.ParquetFile(s) for s in shards]
    schema = files[0].schema_arrow
    image, label = (
        next((c for c in names if c in schema.names), None) for names in (IMAGES, LABELS)
    )
    if image is None:
        raise ValueError(
            f"{shards[0]} has no column of images ({', '.join(IMAGES)}), but "
            f"{', '.join(schema.names)}"
        )
    # The position of each group of rows, which is the smallest part that can be read.
    starts, groups = [0], []
    for shard, file in zip(shards, files, strict=True):
        for group in range(file.num_row_groups):
            groups.append((shard, group))
            starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    read_group = lru_cache(maxsize=4)(
        lambda shard, group: parquet.ParquetFile(shard).read_row_group(
            group, [c for c in (image, label) if c]
        )
    )

    def read(row: int) -> Record:
        at = bisect_right(starts, row) - 1
        (shard, group), within = groups[at], row - starts[at]
        values = read_group(shard, group).slice(within, 1).to_pylist()[0]
        return _record(f"{shard.name}:{row}", values[image], values.get(label))

    return Source(f"parquet:{path}", _names(schema.metadata, label), range(starts[-1]), read)


def _record(name: str, image: Any, label: Any) -> Record:
    data = image["bytes"] if isinstance(image, dict) else image
    if data is None:
        raise ValueError(f"{name} holds the path of an image instead of its bytes")
    labels = [] if label is None else label if isinstance(label, list) else [label]
    return record(name, decode_image(data, name), labels=labels)


def _names(metadata: dict[bytes, bytes] | None, label: str | None) -> tuple[str, ...]:
    """Return the names of the classes that a file carries."""
    found = loads((metadata or {}).get(b"huggingface", b"{}"))
    feature = found.get("info", {}).get("features", {}).get(label, {})
    return tuple(feature.get("names") or feature.get("feature", {}).get("names") or ())
