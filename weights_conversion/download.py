"""Fetch a published file once, whole and verified.

No library at hand resumes a download and verifies it (pooch starts over), so this is the standard
library's `urllib`, with one rule: bytes go to `NAME.part`, which is renamed only after its hash
was verified.
"""

import os
import re
import time
from email.message import Message
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from .folders import cache_directory, sha256_of

_CHUNK = 1 << 18  # bytes
_TIMEOUT = 30.0  # seconds without a byte


class DownloadError(OSError):
    """A file that could not be fetched."""


class _Refused(DownloadError):
    """The server answered, and asking again will not help."""


def fetch(
    url: str,
    *,
    filename: str,
    sha256: str,
    directory: str | PathLike[str] | None = None,
    retries: int = 3,
    wait: float = 1.0,
) -> Path:
    """Return the local path of a published file, downloading it if need be.

    An interrupted download is resumed, also by a later call (HTTP `Range`); a broken connection and
    a server's error 5xx or 429 are retried. Processes that want the same file wait for each other,
    and the file appears under its name only when it is whole. With `JAXATTR_OFFLINE=1` in the
    environment nothing is downloaded.

    Args:
        url: of the file, http or https.
        filename: its name in the cache.
        sha256: its SHA-256 in hexadecimal, or the first digits of it (8 at least), as torchvision's
            file names carry them.
        directory: where to keep it; by default `downloads` in `cache_directory()`.
        retries: how many times to try again after a failure that may pass.
        wait: seconds before the first retry; twice as long before each further one.

    Raises:
        DownloadError: no network, offline mode, an answer such as 404, or the wrong hash; the
            message has the url and the path for a file that is downloaded by hand.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"only http and https are fetched, not {url!r}")
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"sha256 must be 8 to 64 hexadecimal digits, not {sha256!r}")
    if not filename or Path(filename).name != filename:
        raise ValueError(f"filename must be a bare name, not {filename!r}")
    folder = Path(directory) if directory is not None else cache_directory() / "downloads"
    path = folder / filename
    if path.exists() and sha256_of(path).startswith(sha256):
        return path
    by_hand = f"To do without the network, put the file from {url} at {path}."
    if os.environ.get("JAXATTR_OFFLINE", "") not in ("", "0"):
        raise DownloadError(
            f"JAXATTR_OFFLINE is set, and {path} is not there with SHA-256 {sha256}. {by_hand}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{filename}.lock"):
        if path.exists() and sha256_of(path).startswith(sha256):
            return path  # another process fetched it meanwhile
        part = folder / f"{filename}.part"
        try:
            _download_with_retries(url, part, filename, retries, wait)
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url} could not be fetched: {error}. {by_hand}") from error
        found = sha256_of(part)
        if not found.startswith(sha256):
            part.unlink()
            raise DownloadError(
                f"{url} gave a file with SHA-256 {found}, but {sha256} is expected; it was deleted"
            )
        part.replace(path)
    return path


def _download_with_retries(url: str, part: Path, label: str, retries: int, wait: float) -> None:
    for attempt in range(retries + 1):
        try:
            _download(url, part, label)
            return
        except _Refused:
            raise
        except (OSError, HTTPException):
            if attempt == retries:
                raise
        time.sleep(wait * 2**attempt)


def _download(url: str, part: Path, label: str) -> None:
    """Append what is missing to the part file; return when the server says that it is whole."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "jaxattr", "Accept-Encoding": "identity"}
    request = Request(url, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))
    try:
        response = urlopen(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # more bytes are here than there: they are of another file
            part.unlink()
            raise DownloadError("the server has no more bytes than the partial file") from error
        if error.code >= 500 or error.code == 429:
            raise
        raise _Refused(str(error)) from error
    with response:
        start, total = _extent(response.status, response.headers)
        if start > have:
            raise DownloadError(f"the server resumes at byte {start}, not {have}")
        with (
            part.open("r+b" if have else "wb") as file,
            tqdm(
                desc=label, initial=start, total=total, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            file.truncate(start)
            file.seek(start)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() != total:
                raise DownloadError(f"the connection broke after {file.tell()} of {total} bytes")


def _extent(status: int, headers: Message) -> tuple[int, int | None]:
    """Return the byte at which an answer starts, and the length of the whole file if known."""
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if status == 206 and match:
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = headers.get("Content-Length")
    return 0, None if length is None else int(length)
