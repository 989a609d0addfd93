"""Drawn pictures of which the truth is known: two shapes make the class, others distract."""

from typing import NamedTuple

import numpy as np

from jaxattr.data.records import Record, record
from jaxattr.data.sources import Source

SIZE, RADIUS = 32, 5
PARTS = ("disk", "square", "triangle")
"""What the shape on the left and the shape on the right may be."""
CLASSES = tuple(f"{left} and {right}" for left in PARTS for right in PARTS)
DISTRACTORS = ("cross", "ring")


class Picture(NamedTuple):
    """A drawn picture.

    Attributes:
        image: uint8 `(32, 32, 3)`.
        label: the class, a position in `CLASSES`.
        parts: where the left and the right shape are, bool `(2, 32, 32)`; nothing else tells the
            class, and each of the two tells a third of it.
        distractors: where other shapes are, bool `(32, 32)`.
    """

    image: np.ndarray
    label: int
    parts: np.ndarray
    distractors: np.ndarray


def picture(index: int, *, seed: int = 0, without: tuple[int, ...] = ()) -> Picture:
    """Draw a picture: noise, a shape on the left and one on the right, and two that distract.

    The class is the pair of shapes, of three each. Their places, colors and sizes, the distractors
    and the background are drawn independently of it, so that the truth of an explanation is known:
    the two shapes, one as important as the other.

    Args:
        index: of the picture.
        seed: of the data set.
        without: parts to leave out, 0 for the left and 1 for the right: the same picture with the
            background where they were.

    Example:
        >>> whole, cut = picture(3), picture(3, without=(0,))
        >>> changed = (whole.image != cut.image).any(-1)
        >>> CLASSES[whole.label], bool((changed <= whole.parts[0]).all())
        ('square and triangle', True)
    """
    rng = np.random.default_rng((seed, index))
    kinds, label = rng.integers(0, len(PARTS), 2), 0
    label = int(kinds[0]) * len(PARTS) + int(kinds[1])
    colors = rng.integers(110, 256, (4, 3))
    others = rng.integers(0, len(DISTRACTORS), 2)
    jitter = rng.integers(-2, 3, (4, 2))
    sizes = rng.integers(RADIUS - 1, RADIUS + 1, 4)
    above = 2 * int(rng.integers(0, 2)) - 1  # the parts are above, or the distractors
    canvas = rng.integers(0, 100, (SIZE, SIZE, 1)).repeat(3, 2)
    middle, apart = SIZE // 2, SIZE // 4
    masks = []
    for i, name in enumerate([PARTS[k] for k in kinds] + [DISTRACTORS[k] for k in others]):
        down = above if i < 2 else -above
        center = np.array([middle + down * apart, middle + (2 * (i % 2) - 1) * apart]) + jitter[i]
        masks.append(shape(name, center, int(sizes[i])))
        if i not in without:
            canvas = np.where(masks[-1][..., None], colors[i], canvas)
    return Picture(canvas.astype(np.uint8), label, np.stack(masks[:2]), masks[2] | masks[3])


def shape(name: str, center: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels of a shape, bool `(32, 32)`."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    down, across = rows - center[0], columns - center[1]
    far = np.hypot(down, across)
    side = np.maximum(abs(down), abs(across))
    return {
        "disk": far <= radius,
        "square": side < radius,
        "triangle": (down < radius) & (2 * abs(across) <= down + radius),
        "cross": (side <= radius) & (np.minimum(abs(down), abs(across)) < 1),
        "ring": (far <= radius) & (far > radius - 2),
    }[name]


def source(name: str, *, split: str | None = None) -> Source:
    """Open a data set of pictures, drawn as they are read.

    Args:
        name: how many, such as "1000".
        split: "train", or "test" by default, of other pictures.

    Raises:
        ValueError: if the name is no number, or there is no such split.
    """
    splits = {"test": 0, "train": 1}
    if not name.isdecimal() or int(name) < 1:
        raise ValueError(f"shapes:{name} names no number of pictures; write shapes:1000")
    if split is not None and split not in splits:
        raise ValueError(f"shapes:{name} has no split {split!r}, but train and test")
    seed = splits[split or "test"]

    def read(index: int) -> Record:
        drawn = picture(index, seed=seed)
        every = np.asarray(drawn.parts.any(0))
        places = [np.argwhere(part) for part in drawn.parts]
        boxes = [[*at.min(0), *(at.max(0) + 1)] for at in places]
        labels = [drawn.label] * 2
        return record(
            f"{split or 'test'}{index}",
            drawn.image,
            boxes=boxes,
            box_labels=labels,
            masks=every[None],
        )

    return Source(f"shapes:{name}", CLASSES, range(int(name)), read)
