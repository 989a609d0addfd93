"""Names of the classes of known data sets, in the order of their labels."""

from importlib.resources import files


def _lines(name: str) -> tuple[str, ...]:
    return tuple(files("jaxattr.data").joinpath(name).read_text().splitlines())


IMAGENET = _lines("imagenet_classes.txt")
"""The usual short names of the 1000 classes of ImageNet's challenge, as torchvision prints them."""

SYNSETS = _lines("imagenet_synsets.txt")
"""Their numbers in WordNet, as ImageNet names its folders: `n01440764` is the first."""

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


VOC = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The classes of PASCAL VOC in their usual order."""


def names(count: int, published: tuple[str, ...]) -> tuple[str, ...]:
    """Return the published names if there are `count`, else the indices.

    >>> names(10, CIFAR10)[3], names(3, CIFAR10)
    ('cat', ('0', '1', '2'))
    """
    return published if len(published) == count else tuple(map(str, range(count)))
