"""Tensors as a checkpoint describes them: strided windows on storages in a file."""

import mmap
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_CHUNK = 1 << 24  # bytes of a file worked on at once
MAX_EXPANDED = 2**24  # elements of a tensor that repeats its storage, e.g. one made by `expand`


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or must not be: damaged, forged, or of an unknown form."""


_NAMES = """
    bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64
    complex32 complex64 complex128
    float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu
"""

DTYPES: Mapping[str, np.dtype] = {
    name: np.dtype(getattr(ml_dtypes if hasattr(ml_dtypes, name) else np, name))
    for name in _NAMES.split()
    if hasattr(ml_dtypes, name) or hasattr(np, name)  # complex32 came with ml_dtypes 0.6
}
"""torch's dtypes by name, as NumPy's and ml_dtypes'. None exists for quantized and bit types."""


class Storage(NamedTuple):
    """A run of `size` elements in the storage called `key`; `dtype=None` counts bytes."""

    key: str
    dtype: np.dtype | None
    start: int
    size: int

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return 1 if self.dtype is None else self.dtype.itemsize

    @property
    def end(self) -> int:
        """Bytes from the start of the file's storage to the last one used."""
        return (self.start + self.size) * self.itemsize


class Tensor(NamedTuple):
    """A tensor of a checkpoint, not read yet. Offset and strides count elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False


class Region(NamedTuple):
    """Where the bytes of a storage lie in the file, and their CRC-32 where the format has one."""

    start: int
    size: int
    crc: int | None = None


class Contents(NamedTuple):
    """What a file of torch's holds: the saved object, its storages, the order of its bytes."""

    value: Any
    regions: dict[str, Region]
    little_endian: bool


def rebuild(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any, flags: Any = None
) -> Tensor:
    """Describe a tensor from what a pickle says of it, after checking every number.

    Raises:
        CheckpointError: a number is not a count, or the tensor reaches outside its storage.
    """
    if not isinstance(storage, Storage):
        raise CheckpointError("a tensor is rebuilt from something that is not a storage")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise CheckpointError("a tensor's shape or strides are not tuples")
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers) or len(shape) > 64:
        raise CheckpointError("a tensor's shape, strides or offset are not counts")
    if len(shape) != len(strides):
        raise CheckpointError(f"a tensor has {len(shape)} axes but {len(strides)} strides")
    flags = {} if flags is None else flags
    if not (isinstance(flags, dict) and flags.keys() <= {"conj", "neg"}):
        raise CheckpointError("a tensor carries metadata other than its conjugate and sign bits")
    conjugate, negative = flags.get("conj") is True, flags.get("neg") is True
    if (conjugate and dtype.kind != "c") or (negative and dtype.kind not in "fc"):
        raise CheckpointError(f"a tensor of {dtype} cannot be conjugate or negative")
    tensor = Tensor(storage, dtype, offset, shape, strides, conjugate, negative)
    room = storage.size * storage.itemsize // dtype.itemsize
    if extent(tensor) > room:
        raise CheckpointError(
            f"a tensor of shape {shape} reaches element {extent(tensor)} of storage "
            f"{quote(storage.key)}, which has {room}"
        )
    if prod(max(n, 1) for n in shape) > max(room, MAX_EXPANDED):
        raise CheckpointError(f"a tensor of shape {shape} repeats a storage of {room} elements")
    return tensor


def extent(tensor: Tensor) -> int:
    """Count the elements from the storage's start to the last one the tensor touches."""
    if 0 in tensor.shape:
        return 0
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    return tensor.offset + reach + 1


def view(tensor: Tensor, region: Region, file: mmap.mmap, *, swap: bool = False) -> np.ndarray:
    """Return the tensor as a read-only NumPy array on the mapped file; nothing is copied.

    A tensor whose bytes must be swapped, conjugated or negated is a copy.
    """
    dtype = tensor.dtype
    start = tensor.storage.start * tensor.storage.itemsize
    array = np.ndarray(
        tensor.shape,
        dtype,
        buffer=memoryview(file)[region.start : region.start + region.size],
        offset=start + tensor.offset * dtype.itemsize if extent(tensor) else 0,
        # The stride of an axis of length 1 says nothing, and may be too large for NumPy.
        strides=[
            s * dtype.itemsize if n > 1 else 0
            for n, s in zip(tensor.shape, tensor.strides, strict=True)
        ]
        if extent(tensor)
        else None,
    )
    if swap:
        numbers = 2 if dtype.name.startswith("complex") else 1  # of an element
        words = np.ascontiguousarray(array).reshape(-1).view(f"u{dtype.itemsize // numbers}")
        array = words.byteswap().view(dtype).reshape(tensor.shape)
    if tensor.conjugate:
        array = np.conj(array)
    return np.negative(array) if tensor.negative else array


def verify(file: mmap.mmap, region: Region) -> bool:
    """Tell whether the bytes agree with their CRC-32, where one was written."""
    if not region.crc:  # torch.serialization.set_crc32_options(False) writes zeros
        return True
    crc, end = 0, region.start + region.size
    for start in range(region.start, end, _CHUNK):
        crc = zlib.crc32(memoryview(file)[start : min(start + _CHUNK, end)], crc)
        release(file)
    return crc == region.crc


def release(memory: object) -> None:
    """Give the pages of a mapped file, or of an array on one, back to the system.

    They are read again when they are used again. Without this the file would count as memory of
    the process as far as it was read.
    """
    while isinstance(memory, np.ndarray):
        memory = memory.base
    if isinstance(memory, memoryview):
        memory = memory.obj
    if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)


def quote(name: str) -> str:
    """Quote a name from a file for a message, short enough whatever the file says."""
    return repr(name if len(name) <= 100 else name[:100] + "...")
