"""torch's zip format, its default since version 1.6.

`NAME/data.pkl` is the object's pickle and `NAME/data/KEY` the bytes of each storage, stored
uncompressed, so that they can be used where they lie. Compressed entries are refused: torch writes
none, and so no archive can be larger than its file.
"""

import io
import mmap
import struct
import zipfile
from pathlib import Path

from .kinds_of_files import archive_described
from .pickles import unpickle
from .tensors import CheckpointError, Contents, Region, quote, verify

_START = b"PK\x03\x04"


def read_zip(path: Path, file: mmap.mmap) -> Contents:
    """Read the object of a zip file and find its storages.

    Raises:
        CheckpointError: the archive is damaged, compressed, or asks for more than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError) as error:
        raise CheckpointError(f"its zip directory is damaged or cut off: {error}") from error
    entries = {entry.filename: entry for entry in listed}
    if len(entries) != len(listed):
        raise CheckpointError("its zip directory names an entry twice")
    if what := archive_described(entries):
        raise CheckpointError(f"it is {what}")
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError("it is a zip archive, but none that torch.save wrote: no data.pkl")

    def locate(name: str) -> Region:
        if name not in entries:
            raise CheckpointError(f"its entry {quote(name)} is missing")
        return _region(entries[name], file)

    def read(name: str) -> bytes:
        region = locate(name)
        if not verify(file, region):
            raise CheckpointError(f"its entry {quote(name)} fails its CRC-32: it is corrupted")
        return file[region.start : region.start + region.size]

    value, storages = unpickle(io.BytesIO(read(f"{roots[0]}data.pkl")))
    regions = {key: locate(f"{roots[0]}data/{key}") for key in storages}
    order = f"{roots[0]}byteorder"
    return Contents(value, regions, order not in entries or read(order) != b"big")


def _region(entry: zipfile.ZipInfo, file: mmap.mmap) -> Region:
    name = quote(entry.filename)
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise CheckpointError(f"its entry {name} is compressed; torch.save stores entries plainly")
    header = file[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or not header.startswith(_START):
        raise CheckpointError(f"its entry {name} has no header at byte {entry.header_offset}")
    lengths = struct.unpack("<HH", header[26:])
    start = entry.header_offset + 30 + sum(lengths)
    if start + entry.file_size > file.size():
        raise CheckpointError(f"its entry {name} ends after the file: it is truncated")
    return Region(start, entry.file_size, entry.CRC)


def is_zip(start: bytes) -> bool:
    """Tell whether a file that starts so is a zip archive."""
    return start.startswith(_START)
