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


COCO = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)
"""The 80 categories of COCO that have objects, in the order of their numbers."""

VOC_IN_IMAGENET: dict[str, tuple[int, ...]] = {
    "aeroplane": (404, 895),
    "bicycle": (444, 671),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "boat": (472, 484, 554, 576, 625, 628, 724, 780, 814, 871, 914),
    "bottle": (440, 720, 737, 898, 907),
    "bus": (654, 779, 874),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 717, 751, 817),
    "cat": tuple(range(281, 286)),
    "chair": (423, 559, 765),
    "cow": (345, 346, 347),
    "diningtable": (532,),
    "dog": tuple(range(151, 269)),
    "horse": (339,),
    "motorbike": (665, 670),
    "person": (445, 515, 518, 578, 601, 608, 610, 655, 834, 837, 841, 842, 869, 981, 982, 983),
    "pottedplant": (738,),
    "sheep": (348, 349),
    "sofa": (831,),
    "train": (466, 547, 705, 820, 829),
    "tvmonitor": (664, 782, 851),
}
"""The classes of ImageNet that belong to each of VOC; a person is known by what people wear."""


def names(count: int, published: tuple[str, ...]) -> tuple[str, ...]:
    """Return the published names if there are `count`, else the indices.

    >>> names(10, CIFAR10)[3], names(3, CIFAR10)
    ('cat', ('0', '1', '2'))
    """
    return published if len(published) == count else tuple(map(str, range(count)))
