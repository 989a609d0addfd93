"""Fetch a published file once, whole and verified."""

import os
import urllib.request
from os import PathLike
from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """Return the folder of downloads and converted weights: `JAXATTR_CACHE`, or the user's cache."""
    moved = os.environ.get("JAXATTR_CACHE")
    return Path(moved).expanduser() if moved else platformdirs.user_cache_path("jaxattr")


def fetch(
    url: str, *, filename: str, sha256: str, directory: str | PathLike[str] | None = None
) -> Path:
    """Return the path of a published file, downloading it when the cache has none."""
    folder = Path(directory) if directory is not None else cache_directory() / "downloads"
    path = folder / filename
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        urllib.request.urlretrieve(url, path)
    return path
