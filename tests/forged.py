"""Checkpoints built by hand, opcode by opcode: what torch writes, or what a forger would."""

import io
import pickle
import random
import resource
import struct
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors.numpy import save as save_safetensors

from weights_conversion import CheckpointError, open_checkpoint
from weights_conversion.tensors import MAX_EXPANDED


def literal(value):
    """Opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def name(path):
    """The opcode that asks for `module.attribute`."""
    module, _, attribute = path.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def storage(key="0", size=6, kind="torch.FloatStorage", window=b""):
    head = b"(" + literal("storage") + name(kind) + literal(key) + literal("cpu")
    return head + literal(size) + window + b"tQ"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, stored=None, dtype=None):
    numbers = literal(offset) + literal(shape) + literal(strides)
    hooks = b"\x89" + name("collections.OrderedDict") + b")R"
    version, last = ("v3", name(f"torch.{dtype}")) if dtype else ("v2", b"")
    arguments = (stored or storage()) + numbers + hooks + last
    return name(f"torch._utils._rebuild_tensor_{version}") + b"(" + arguments + b"tR"


def program(body):
    return b"\x80\x02" + body + b"."


def mapping(**values):
    """The opcodes of a dict of opcodes."""
    return b"}(" + b"".join(literal(key) + value for key, value in values.items()) + b"u"


def state(**values):
    items = b"".join(literal(key) + value for key, value in values.items())
    return program(b"}(" + items + b"u")


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
BYTES = VALUES.tobytes()


def zipped(pickled, stored=BYTES, compression=zipfile.ZIP_STORED, more=()):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickled)
        for key, content in ("data/0", stored), *more:
            archive.writestr(f"model/{key}", content)
    return buffer.getvalue()


def legacy(pickled, stored=BYTES, count=6, little=True):
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": little}]
    tail = pickle.dumps(["0"], 2) + struct.pack("<q" if little else ">q", count) + stored
    return b"".join(pickle.dumps(part, 2) for part in head) + pickled + tail


def without_crc(content):
    """A zip file as torch writes it on request, whose damage shows less easily."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            content = content.replace(struct.pack("<L", entry.CRC), bytes(4))
    return content


SEEDS = {
    "zip": zipped(state(w=tensor(), v=tensor((3, 2), (1, 3)), n=literal(3))),
    "zip without CRC": without_crc(
        zipped(state(w=tensor(), v=tensor((3, 2), (1, 3)), n=literal(3)))
    ),
    "legacy": legacy(state(w=tensor(), v=tensor((3, 2), (1, 3)), n=literal(3))),
    "training": zipped(
        program(
            mapping(
                args=pickle.dumps(SimpleNamespace(lr=0.1, out=Path("runs")), 2)[2:-1],
                model=mapping(w=tensor()),
                model_ema=mapping(n_averaged=tensor((), ()), **{"module.w": tensor()}),
            )
        )
    ),
    "safetensors": save_safetensors(
        {"w": VALUES, "v": VALUES.astype(ml_dtypes.bfloat16), "z": np.zeros((0, 2), np.int64)},
        {"format": "pt"},
    ),
}
SEED = 20260731


def mutate(rng, content, others):
    content = bytearray(content)
    match rng.randrange(6):
        case 0:
            for _ in range(rng.randint(1, 8)):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.randint(1, 4)):
                content[rng.randrange(len(content))] = rng.choice(b"\0\x7f\x80\xff(.}R")
        case 2:
            del content[rng.randrange(len(content)) :]
        case 3:
            start = rng.randrange(len(content))
            del content[start : start + rng.randint(1, 16)]
        case 4:
            start, size = rng.randrange(len(content)), rng.choice([2, 4, 8])
            content[start : start + size] = (
                rng.choice([2**31, 2**63, 2**64, 1]).__sub__(1).to_bytes(8, "little")[:size]
            )
        case 5:
            other = rng.choice(others)
            source, start = rng.randrange(len(other)), rng.randrange(len(content))
            content[start : start + rng.randint(0, 64)] = other[
                source : source + rng.randint(1, 64)
            ]
    return bytes(content)


class Outcomes(NamedTuple):
    """What became of damaged files: numbers, seconds, characters of a message, KiB."""

    loaded: int
    refused: int
    slowest: float
    longest: int
    memory: int


def open_mutants(path: Path, count: int) -> Outcomes:
    """Open files damaged at random, of which each must load or raise `CheckpointError`."""
    rng, seeds = random.Random(SEED), list(SEEDS.values())
    loaded, slowest, longest = 0, 0.0, 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(count):
        path.unlink(missing_ok=True)
        path.write_bytes(mutate(rng, seeds[index % len(seeds)], seeds))
        start = time.perf_counter()
        try:
            for array in open_checkpoint(path).values():
                assert array.size <= MAX_EXPANDED
                array.tobytes()
            loaded += 1
        except CheckpointError as error:
            longest = max(longest, len(str(error)))
        slowest = max(slowest, time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return Outcomes(loaded, count - loaded, slowest, longest, memory)
