"""torch's legacy format, written up to version 1.5 and on request since.

Five pickles one after another (magic number, protocol, the writer's system, the object, the keys
of its storages), then for each key the number of elements (int64) and the elements themselves.
"""

import mmap

from .pickles import unpickle
from .tensors import CheckpointError, Contents, Region, quote

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read_legacy(file: mmap.mmap) -> Contents:
    """Read the object of a legacy file and find its storages.

    Raises:
        CheckpointError: the file is damaged or asks for more than tensors.
    """
    if unpickle(file).value != MAGIC or unpickle(file).value != PROTOCOL:
        raise CheckpointError("it is a pickle, but none that torch.save wrote")
    system = unpickle(file).value
    little = not isinstance(system, dict) or system.get("little_endian") is not False
    value, storages = unpickle(file)
    keys = unpickle(file).value
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise CheckpointError("its list of storages is damaged")
    regions: dict[str, Region] = {}
    position, end = file.tell(), file.size()
    for key in keys:
        if key not in storages or key in regions:
            raise CheckpointError(f"its list of storages is damaged at {quote(key)}")
        count = int.from_bytes(file[position : position + 8], "little" if little else "big")
        size = count * storages[key].itemsize
        if position + 8 + size > end:
            raise CheckpointError(
                f"storage {quote(key)} of {size} bytes starts at byte {position + 8}, but the "
                f"file ends at {end}: it is truncated"
            )
        regions[key] = Region(position + 8, size)
        position += 8 + size
    if position != end:
        raise CheckpointError(f"its last storage ends at byte {position}, but the file at {end}")
    return Contents(value, regions, little)


def is_legacy(start: bytes) -> bool:
    """Tell whether a file that starts so is a pickle (protocol 2 or later)."""
    return start[:1] == b"\x80"
