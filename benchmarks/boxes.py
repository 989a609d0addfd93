"""Every method by every metric that needs boxes, masks or other classes, in one table.

    python benchmarks/boxes.py DATA OUT [--images 200] [--methods saliency,grad_cam]

EfficientNet-Lite0 on photographs of VOC2007's test set (DATA/voc2007), squashed to 224 x 224. Each
class that a photograph holds is explained once, as the ImageNet class of the largest logit among
those that belong to it (`jaxattr.data.classes.VOC_IN_IMAGENET`). Files are written as by
`photographs.py`. OUT/table.md and OUT/table.png hold

    pointing               accuracy of the pointing game, the mean over the classes; of all pairs,
                           and of the difficult ones
    energy                 share of the positive attribution in the boxes, where these cover at most
                           half of the photograph
    box IoU                of the positive pixels, and of those above their mean
    segments               IoU with the object's pixels of those above the mean, where known
    others                 complementary insertion, 8 steps: how fast the photograph's other classes
                           appear as the least attributed pixels are inserted

Higher is better. All maps are resized to the photograph; channels are summed.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scoreboard import Rows, Scores, Summary, explain, means, measure, parser, run
from voc import SIZE, Photograph, likeliest, photographs

from jaxattr import metrics
from jaxattr.models import Pretrained, load

LARGEST, OTHERS = 500, 5
"""The longest side of VOC's photographs, and how many other classes one may have."""
VOID = 255
"""What the object's border is in VOC's segmentations."""
COLUMNS = ("energy", "box IoU", "box IoU above mean", "segments", "others")


T = TypeVar("T")


class Case(NamedTuple):
    """A class in a photograph; of a batch the same, stacked.

    Attributes:
        x: the model's input.
        target: the ImageNet class explained, `others` those of the photograph's other classes.
        label: the VOC class, `difficult` whether it belongs to the difficult subset.
        size: the photograph's height and width.
        boxes: where it is, `(LARGEST, LARGEST)`, and `segment` its pixels, `void` those undecided.
    """

    x: np.ndarray
    target: np.ndarray
    others: np.ndarray
    label: np.ndarray
    difficult: np.ndarray
    size: np.ndarray
    boxes: np.ndarray
    segment: np.ndarray
    void: np.ndarray


def cases(folder: Path, given: Photograph, pretrained: Pretrained, forward: Callable) -> list[Case]:
    """Make a case of each class in a photograph."""
    name, image, objects = given
    x = pretrained.preprocess._replace(resize_size=SIZE)(image.resize((SIZE, SIZE)))
    logits = np.asarray(forward(pretrained.model, x[None]))[0]
    classes = [likeliest(logits, o.label) for o in objects]
    size = (image.height, image.width)
    path = folder / "SegmentationClass" / f"{name}.png"
    segments = np.asarray(Image.open(path)) if path.exists() else np.zeros(size, np.uint8)
    found = []
    for i, (target, thing) in enumerate(zip(classes, objects, strict=True)):
        label = metrics.VOC_CLASSES.index(thing.label)
        others = np.full(OTHERS, -1)
        rest = classes[:i] + classes[i + 1 :]
        others[: len(rest)] = rest
        masks = metrics.box_masks(thing.boxes, size), segments == label + 1, segments == VOID
        numbers = target, others, label, thing.difficult, size
        found.append(Case(x, *map(np.asarray, numbers), *map(filled, masks)))
    return found


def every_case(data: Path, pretrained: Pretrained, images: int) -> list[Case]:
    """Make the cases of the first photographs."""
    forward, folder = jax.jit(lambda model, x: model(x)), data / "voc2007"
    chosen = islice(photographs(folder), images)
    return [case for photo in chosen for case in cases(folder, photo, pretrained, forward)]


def is_one_box(mask: np.ndarray) -> bool:
    """Whether boxes fill the rectangle around them, as one does.

    >>> is_one_box(np.array([[0, 1, 1], [0, 1, 1]])), is_one_box(np.array([[1, 0], [0, 1]]))
    (True, False)
    """
    rows, columns = (mask.any(axis) for axis in (1, 0))
    return bool(mask[rows][:, columns].all() and _runs(rows) and _runs(columns))


def _runs(a: np.ndarray) -> bool:
    return int(np.flatnonzero(np.diff(np.pad(a.astype(int), 1))).size) == 2


def pictures(data: Path, images: int) -> list[np.ndarray]:
    """Return the photograph of every case, uint8, padded as its masks are."""
    chosen = islice(photographs(data / "voc2007"), images)
    return [filled(np.asarray(p.image.convert("RGB"))) for p in chosen for _ in p.objects]


def around(mask: np.ndarray) -> np.ndarray:
    """Mark the smallest box around a mask.

    >>> around(np.array([[0, 1, 0], [0, 0, 1]])).astype(int).tolist()
    [[0, 1, 1], [0, 1, 1]]
    """
    rows, columns = (np.maximum.accumulate(mask.any(a)) for a in (1, 0))
    up, back = (np.maximum.accumulate(mask.any(a)[::-1])[::-1] for a in (1, 0))
    return (rows & up)[:, None] & (columns & back)


def filled(mask: np.ndarray) -> np.ndarray:
    """Pad a mask or picture to the largest size."""
    full = np.zeros((LARGEST, LARGEST, *mask.shape[2:]), mask.dtype)
    full[: mask.shape[0], : mask.shape[1]] = mask
    return full


def batches(every: list[T], size: int) -> Iterator[T]:
    """Stack cases, or other trees of arrays, the last batch filled up with its last case."""
    for i in range(0, len(every), size):
        group = every[i : i + size]
        group += group[-1:] * (size - len(group))
        yield jax.tree.map(lambda *leaves: np.stack(leaves), *group)


@partial(jax.jit, static_argnames="chunk")
def scores(net: Callable, case: Case, a: jax.Array, *, chunk: int) -> Scores:
    """Measure maps `a` of a batch."""
    f = lambda x: net(x)
    above = metrics.above_mean_region
    others = metrics.complementary_insertion(f, step=SIZE * SIZE // 8, chunk=chunk)
    on = partial(dict, sizes=case.size)
    found = {
        "pointing": metrics.pointing_game(a, case.boxes, **on()),
        "energy": metrics.energy_pointing_game(a, case.boxes, **on()),
        "box IoU": metrics.localization_iou(a, case.boxes, **on()),
        "box IoU above mean": metrics.localization_iou(a, case.boxes, **on(region=above)),
        "segments": metrics.segmentation_iou(a, case.segment, void=case.void, **on(region=above)),
        "others": others(case.x, case.others, a),
    }
    return {k: v.score for k, v in found.items()} | {
        "label": case.label,
        "difficult": case.difficult,
    }


def summary(rows: Rows) -> Summary:
    """Return the accuracy of the pointing game as it is reported, and the means of the rest."""
    hit, label, difficult = (
        jnp.array([row[k] for row in rows]) for k in ("pointing", "label", "difficult")
    )
    found = {}
    for name, among in (("pointing", True), ("pointing, difficult", difficult == 1)):
        valid = jnp.isfinite(hit) & among
        accuracy = metrics.class_means(hit, valid, label.astype(int), classes=20)
        found[name] = (float(accuracy.mean), 0.0)
    return found | means(rows, COLUMNS)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    pretrained = load("efficientnet_lite0")
    net, key = pretrained.model, jax.random.key(0)
    every = every_case(options.data, pretrained, options.images)

    def measured(name: str, start: int, case: Case) -> Scores:
        a = explain(name, net, case.x, case.target, key)
        return scores(net, case, a, chunk=options.chunk)

    def one(name: str, path: Path) -> Rows:
        return measure(path, batches(every, options.batch), partial(measured, name), len(every))

    run(options, one, summary)


if __name__ == "__main__":
    main()
