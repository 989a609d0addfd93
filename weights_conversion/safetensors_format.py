"""The safetensors format: a length, a JSON header, and the bytes it describes.

The format's own package validates the header (sizes, offsets, no gaps, no overlaps); the arrays are
then mapped like torch's, with the dtypes that the package's NumPy reader lacks.
"""

import json
import mmap
from itertools import accumulate
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .tensors import DTYPES, CheckpointError, Contents, Region, Storage, quote, rebuild

_NAMES = """
    BOOL bool  U8 uint8  U16 uint16  U32 uint32  U64 uint64  I8 int8  I16 int16  I32 int32
    I64 int64  F16 float16  BF16 bfloat16  F32 float32  F64 float64  C64 complex64
    F8_E4M3 float8_e4m3fn  F8_E4M3FNUZ float8_e4m3fnuz  F8_E5M2 float8_e5m2
    F8_E5M2FNUZ float8_e5m2fnuz  F8_E8M0 float8_e8m0fnu
"""
KINDS = dict(zip(_NAMES.split()[::2], _NAMES.split()[1::2], strict=True))
"""safetensors' dtypes, as torch's."""


def read_safetensors(path: Path, file: mmap.mmap) -> Contents:
    """Read the header of a safetensors file.

    Raises:
        CheckpointError: the header is damaged, or a dtype has no counterpart.
    """
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"its safetensors header is damaged: {str(error)[:200]}") from error
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors, regions = {}, {}
    for name, entry in header.items():
        if entry["dtype"] not in KINDS:
            raise CheckpointError(f"its tensor {quote(name)} has no known dtype: {entry['dtype']}")
        dtype = DTYPES[KINDS[entry["dtype"]]]
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        strides = tuple(accumulate(shape[:0:-1], int.__mul__, initial=1))[: len(shape)][::-1]
        storage = Storage(name, None, 0, last - first)
        tensors[name] = rebuild(storage, 0, shape, strides, dtype)
        regions[name] = Region(8 + length + first, last - first)
    return Contents(tensors, regions, little_endian=True)


def is_safetensors(start: bytes, size: int) -> bool:
    """Tell whether a file of `size` bytes that starts so is safetensors: a length, then JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") + 8 <= size
