"""The photographs that scikit-image carries: a data set that is there offline."""

from importlib.util import find_spec
from pathlib import Path

from jaxattr.data.images import SUFFIXES, read_image
from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source


def source(name: str, *, split: str | None = None) -> Source:
    """Open scikit-image's photographs, which have no labels.

    Args:
        name: "all".
        split: there are none.

    Raises:
        ValueError: if another name or a split is given.
        ModuleNotFoundError: without `scikit-image`.
    """
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            f"skimage:{name} are the photographs of scikit-image, which is not installed: "
            'pip install "jaxattr[demo]"',
            name="skimage",
        )
    if name != "all" or split is not None:
        raise ValueError(f"scikit-image's photographs are skimage:all, not {name!r} {split or ''}")
    folder = Path(package.origin).parent / "data"
    paths = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)

    def read(path: Path) -> Record:
        return record(path.stem, read_image(path))

    return Source("skimage:all", (), paths, read, lambda path: ())
