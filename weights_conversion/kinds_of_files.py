"""What a file is that is no checkpoint, by how it starts."""

from collections.abc import Iterable

STARTS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it stands for: fetch it "
    "by `git lfs pull`",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes (.h5): load it in Keras",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x93NUMPY": "a NumPy array",
    b"\x08\x07\x12\x07pytorch": "an ONNX file, as torch exports",
    b"\x08\x08\x12\x07pytorch": "an ONNX file, as torch exports",
    b"%PDF": "a PDF",
}
"""From first bytes to what they are of."""

_PAGES = (b"<!doctype", b"<html", b"<?xml")


def described(start: bytes) -> str | None:
    """Say what a file is that starts so, or None if that is not known.

    >>> described(b"<!DOCTYPE html>")
    'a web page: the download was refused, or needs to be confirmed in a browser'
    """
    if start.lstrip().lower().startswith(_PAGES):
        return "a web page: the download was refused, or needs to be confirmed in a browser"
    if start.lstrip().startswith(b"{"):
        return "text in JSON; an index of several files is told by its name, *.index.json"
    return next((what for first, what in STARTS.items() if start.startswith(first)), None)


def archive_described(names: Iterable[str]) -> str | None:
    """Say what a zip archive is that has these entries, or None if that is not known."""
    names = list(names)
    if any("/code/" in name for name in names):
        return (
            "a program of TorchScript (torch.jit.save), not a state dict: save "
            "torch.jit.load(path).state_dict() by torch.save"
        )
    if any(name.endswith(".weights.h5") for name in names):
        return "an archive of Keras (.keras): load it in Keras"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)"
    return None
