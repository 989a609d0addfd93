"""ImageNet-Segmentation: 4,276 images of ImageNet with the pixels of their object."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxattr.data.classes import IMAGENET, SYNSETS
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

ADDRESS = "https://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat"


def source(path: str, *, split: str | None = None) -> Source:
    """Open `gtsegs_ijcv.mat`, as published.

    Reference:
        Guillaumin, Kuettel and Ferrari, ImageNet auto-annotation with segmentation propagation,
        IJCV 2014.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another kind of file, or a split is asked for: it has none.
        ModuleNotFoundError: without `h5py`.
    """
    try:
        import h5py  # type: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "ImageNet-Segmentation is read by h5py, which is not installed: pip install h5py",
            name="h5py",
        ) from None
    if split is not None:
        raise ValueError(f"ImageNet-Segmentation has no splits, but split={split!r} was given")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}: fetch it from {ADDRESS}")
    try:
        with h5py.File(path) as file:
            count = len(cast("Any", file["value/img"]))
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} is not gtsegs_ijcv.mat: {error}") from None

    def read(i: int) -> Record:
        with h5py.File(path) as opened:
            file: Any = opened
            at = lambda name: file[file[f"value/{name}"][i, 0]]
            image = np.asarray(at("img")).T  # MATLAB's arrays run down the columns
            pixels = np.asarray(file[at("gt")[0, 0]]).T > 0
            synset = "".join(map(chr, np.asarray(at("target")).ravel()))
            known = synset in SYNSETS
            return record(
                f"{synset}:{i}",
                image,
                labels=[SYNSETS.index(synset)] if known else [],
                masks=pixels[None] if known else np.zeros((0, *pixels.shape), bool),
            )

    return Source(f"segmentation:{path}", IMAGENET, range(count), read)
