"""Names of the classes, in the order of the logits."""

from importlib.resources import files

# The usual short names of the 1000 classes of ImageNet's challenge, as torchvision prints them.
IMAGENET = tuple(files("jaxattr.models").joinpath("imagenet_classes.txt").read_text().splitlines())

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


def names(count: int, published: tuple[str, ...]) -> tuple[str, ...]:
    """Return the published names if there are `count`, else the indices.

    >>> names(10, CIFAR10)[3], names(3, CIFAR10)
    ('cat', ('0', '1', '2'))
    """
    return published if len(published) == count else tuple(map(str, range(count)))
