"""Where downloads and converted weights are kept, and how a file there is replaced."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import platformdirs

_SETTLED = 2_000_000_000  # ns: a younger file may yet change within its time stamp's resolution


def cache_directory() -> Path:
    """Return the folder of downloads and converted weights.

    It is the user's cache folder for `jaxattr`, or what the environment variable `JAXATTR_CACHE`
    says. It need not exist.
    """
    moved = os.environ.get("JAXATTR_CACHE")
    return Path(moved).expanduser() if moved else platformdirs.user_cache_path("jaxattr")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    It is remembered in the cache folder for as long as the file's size, inode and time of change
    stay the same, for hashing can take longer than reading the converted weights.
    """
    path = path.resolve()
    stat = path.stat()
    version = [str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns]
    note = cache_directory() / "hashes" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    with suppress(OSError, ValueError, TypeError):
        *known, digest = json.loads(note.read_text())
        if known == version:
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - stat.st_mtime_ns > _SETTLED:
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            draft = note.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps([*version, digest]))
            draft.replace(note)
    return digest
