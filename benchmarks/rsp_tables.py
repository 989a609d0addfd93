"""RSP's Tables 1 and 2: do maps point at their object, and cover it?

    python benchmarks/rsp_tables.py DATA OUT [--network vgg16_voc07 --weights PATH] [--layer NAME]
    python benchmarks/rsp_tables.py gtsegs_ijcv.mat OUT [--network vgg16 --weights PATH]

Photographs of VOC2007's test set (DATA/voc2007), cases and squashing as in `boxes.py`;
EfficientNet-Lite0 unless another network and its weights are given (the paper's are `vgg16_voc07`
and `resnet50_voc07`). Maps are signed, channels summed (`readings.RSP`). Each row is measured
twice:

    L    every label of a photograph is explained; the hostile classes of RSP are its other labels
    P    only those that the network predicts, the hostile classes the other predicted ones among
         its labels (a logit above 0 of VOC's networks, one of the ten highest of ImageNet's)

and of all cases and of the difficult ones (ALL, DIF) there is PG, the accuracy of the pointing game
as the mean over the classes, and the mean IoU of the boxes with the positive pixels, and with those
above their mean. Table 2 (`segments`, `segments + CRF`) is the IoU of what is above the mean with
the object's own pixels, where VOC has them, and of the same refined by a dense CRF if pydensecrf2
is there. The paper's is of ImageNet-Segmentation, which is read instead if DATA is its file: each
image is explained for its class, against the highest of all others.

`--layer` explains a layer by the gradient methods, as the paper does at the first convolution.
Every batch is written to OUT/NETWORK-METHOD.csv: a run that was stopped resumes there. The table is
OUT/NETWORK.md and .png, the paper's ResNet-50 beside it, or VGG-16 if it is one. `rsp_classes.py`
asks whether the signs are right.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import boxes
import jax
import jax.numpy as jnp
import numpy as np
import tables
from PIL import Image
from scoreboard import Rows, Scores, measure, read

import jaxattr
from jaxattr import metrics
from jaxattr.data import open_source
from jaxattr.models import Pretrained, load

Method = Callable[[jaxattr.Fun, jax.Array, jax.Array, jax.Array, str | None], jax.Array]


def inner(make: Callable) -> Method:
    """Explain a layer if one is named."""
    return lambda f, x, t, hostile, layer: make(f, layer=layer)(x, t)


METHODS: dict[str, Method] = {
    "Grad-CAM": lambda f, x, t, hostile, layer: jaxattr.grad_cam(f)(x, t),
    "Gradient": inner(jaxattr.saliency),
    "Deconvnet": inner(jaxattr.deconvnet),
    "Guided backprop": inner(jaxattr.guided_backprop),
    "EB": lambda f, x, t, hostile, layer: jaxattr.excitation_backprop(f)(x, t),
    "c*EB": lambda f, x, t, hostile, layer: jaxattr.contrastive_excitation_backprop(f)(x, t),
    "RSP": lambda f, x, t, hostile, layer: jaxattr.rsp(f, hostile=hostile)(x, t),
    "RSP, no purge": lambda f, x, t, hostile, layer: jaxattr.rsp(f, hostile=hostile, purge=False)(
        x, t
    ),
    "RSP, eq. 5 everywhere": lambda f, x, t, hostile, layer: jaxattr.rsp(
        f, hostile=hostile, pointwise=True
    )(x, t),
    "c*RSP": lambda f, x, t, hostile, layer: jaxattr.contrastive_rsp(f)(x, t),
    "RAP": lambda f, x, t, hostile, layer: jaxattr.rap(f)(x, t),
    "LRP": lambda f, x, t, hostile, layer: jaxattr.lrp(f)(x, t),
}
COLUMNS = tuple(
    f"{which} {of} {what}"
    for which in "LP"
    for of in ("ALL", "DIF")
    for what in ("PG", "IoU", "IoU above mean")
)
PAPER: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "Grad-CAM": (
        (0.866, 0.43, 0.49, 0.740, 0.39, 0.48, 0.945, 0.41, 0.50, 0.924, 0.33, 0.54),
        (0.903, 0.56, 0.57, 0.823, 0.47, 0.57, 0.953, 0.55, 0.58, 0.932, 0.44, 0.59),
    ),
    "Gradient": (
        (0.762, 0.00, 0.47, 0.568, 0.00, 0.41, 0.858, 0.00, 0.49, 0.716, 0.00, 0.50),
        (0.723, 0.00, 0.45, 0.568, 0.00, 0.40, 0.734, 0.00, 0.44, 0.605, 0.00, 0.43),
    ),
    "Deconvnet": (
        (0.675, 0.00, 0.41, 0.441, 0.00, 0.31, 0.802, 0.00, 0.46, 0.573, 0.00, 0.37),
        (0.686, 0.00, 0.43, 0.447, 0.00, 0.33, 0.789, 0.00, 0.44, 0.595, 0.00, 0.39),
    ),
    "Guided backprop": (
        (0.758, 0.00, 0.49, 0.530, 0.00, 0.43, 0.880, 0.00, 0.52, 0.784, 0.00, 0.54),
        (0.771, 0.00, 0.51, 0.594, 0.00, 0.46, 0.857, 0.00, 0.53, 0.756, 0.00, 0.53),
    ),
    "EB": (
        (0.735, 0.00, 0.46, 0.520, 0.00, 0.45, 0.856, 0.00, 0.47, 0.742, 0.00, 0.53),
        (0.785, 0.00, 0.46, 0.623, 0.00, 0.45, 0.864, 0.00, 0.47, 0.768, 0.00, 0.50),
    ),
    "c*EB": (
        (0.766, 0.38, 0.45, 0.634, 0.34, 0.50, 0.856, 0.40, 0.42, 0.784, 0.39, 0.55),
        (0.857, 0.49, 0.49, 0.741, 0.45, 0.56, 0.945, 0.52, 0.49, 0.887, 0.51, 0.62),
    ),
    "RSP": (
        (0.849, 0.51, 0.51, 0.712, 0.43, 0.54, 0.946, 0.56, 0.51, 0.903, 0.54, 0.63),
        (0.859, 0.49, 0.51, 0.749, 0.39, 0.49, 0.909, 0.54, 0.53, 0.836, 0.44, 0.54),
    ),
    "c*RSP": (
        (0.785, 0.46, 0.47, 0.627, 0.42, 0.52, 0.881, 0.49, 0.46, 0.791, 0.51, 0.60),
        (0.891, 0.52, 0.52, 0.777, 0.46, 0.54, 0.949, 0.56, 0.53, 0.893, 0.53, 0.61),
    ),
}
"""Of each method the paper's VOC2007 columns, of VGG-16 and of ResNet-50."""
SEGMENT_COLUMNS = ("segments", "segments + CRF")
SEGMENTS = {"Grad-CAM": (np.nan, 0.5214), "RAP": (0.5946, np.nan), "RSP": (0.6081, 0.6451)}
"""Table 2, of ImageNet-Segmentation: without and with the CRF."""


def published(network: str) -> dict[tables.Key, float]:
    """Return the paper's cells for the network that is more like one of its own."""
    which = int(not network.startswith("vgg"))
    found = {
        (row, column): value
        for row, pair in PAPER.items()
        for column, value in zip(COLUMNS, pair[which], strict=True)
    }
    for row, pair in SEGMENTS.items():
        names = zip(SEGMENT_COLUMNS, pair, strict=True)
        found |= {(row, name): value for name, value in names if np.isfinite(value)}
    return found


def predicted(case: boxes.Case, logits: np.ndarray) -> tuple[bool, np.ndarray]:
    """Return whether a case's class is predicted, and its other classes that are, -1 for none."""
    lowest = 0 if len(logits) == 20 else np.sort(logits)[-10]
    others = [c if c >= 0 and logits[c] >= lowest else -1 for c in case.others]
    return bool(logits[case.target] >= lowest), np.array(others)


def segmented(path: Path, pretrained: Pretrained, images: int) -> tuple[list, list[np.ndarray]]:
    """Read cases and pictures of ImageNet-Segmentation, of the images whose class is known."""
    forward, found = jax.jit(lambda net, x: net(x)), []
    for record in islice(open_source(f"segmentation:{path}"), images):
        if not len(record.labels):
            continue
        shrunk = Image.fromarray(record.image)
        shrunk.thumbnail((boxes.LARGEST, boxes.LARGEST))
        mask = np.asarray(Image.fromarray(record.masks[0]).resize(shrunk.size, Image.NEAREST))
        squashed = shrunk.resize((boxes.SIZE, boxes.SIZE))
        x = pretrained.preprocess._replace(resize_size=boxes.SIZE)(squashed)
        logits = np.array(forward(pretrained.model, x[None]))[0]
        target = int(record.labels[0])
        logits[target] = -np.inf
        others = np.full(boxes.OTHERS, -1)
        others[0] = logits.argmax()
        numbers = (np.asarray(n) for n in (target, others, 0, False, mask.shape))
        masks = (boxes.filled(m) for m in (boxes.around(mask), mask, mask & False))
        found.append((boxes.Case(x, *numbers, *masks), boxes.filled(np.asarray(shrunk))))
    return [case for case, _ in found], [picture for _, picture in found]


@partial(jax.jit, static_argnames=("name", "layer"))
def explain(name: str, layer: str | None, net: Any, case: boxes.Case, hostile: Any) -> jax.Array:
    """Explain a batch against its hostile classes."""
    return METHODS[name](lambda x: net(x), case.x, case.target, hostile, layer)


@partial(jax.jit, static_argnames="refined")
def scored(case: boxes.Case, image: Any, a: jax.Array, *, refined: bool) -> Scores:
    """Measure the maps of a batch."""
    above = metrics.above_mean_region
    on = partial(dict, sizes=case.size)
    iou = partial(metrics.segmentation_iou, a, case.segment, void=case.void, **on())
    found = {
        "PG": metrics.pointing_game(a, case.boxes, **on()).score,
        "IoU": metrics.localization_iou(a, case.boxes, **on()).score,
        "IoU above mean": metrics.localization_iou(a, case.boxes, **on(region=above)).score,
        "segments": iou(region=above).score,
    }
    crf = iou(region=metrics.dense_crf(image, region=above)).score if refined else jnp.nan
    return found | {"segments + CRF": crf * jnp.ones(len(a))}


def measured(
    name: str, layer: str | None, refined: bool, net: Any, case: boxes.Case, also: Any, image: Any
) -> Scores:
    """Measure a method's maps of a batch against both kinds of hostile classes."""
    known, rivals = also
    found: Scores = {"label": case.label, "difficult": case.difficult, "P": known}
    for which, hostile in (("L", case.others), ("P", rivals)):
        a = explain(name, layer, net, case, hostile)
        values = scored(case, image, a, refined=refined and which == "L")
        found |= {f"{which} {k}": v for k, v in values.items()}
    return found


def summary(rows: Rows) -> dict[str, tables.Cell]:
    """Return the columns of a method: of the pointing game the mean over the classes."""
    at = {k: np.array([row[k] for row in rows]) for k in rows[0]}
    found = {}
    for column in COLUMNS:
        which, of, what = column.split(" ", 2)
        chosen = (at["P"] > 0) | (which == "L")
        chosen &= (at["difficult"] > 0) | (of == "ALL")
        values = at[f"{which} {what}"]
        found[column] = tables.cell(values[chosen])
        if what == "PG":
            valid = np.isfinite(values) & chosen
            of_classes = metrics.class_means(values, valid, at["label"].astype(int), classes=20)
            found[column] = tables.Cell(float(of_classes.mean), np.nan, int(valid.sum()))
    return found | {name: tables.cell(at[f"L {name}"]) for name in SEGMENT_COLUMNS}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--layer", help="explained by the gradient methods, instead of the image")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--methods", help="rows with semicolons between them; by default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pretrained = load(options.network, path=options.weights)
    net, refined = pretrained.model, find_spec("pydensecrf") is not None
    if options.data.is_file():
        every, images = segmented(options.data, pretrained, options.images)
    else:
        every = boxes.every_case(options.data, pretrained, options.images)
        images = boxes.pictures(options.data, options.images)
    forward = jax.jit(lambda net, x: net(x))
    also = [predicted(c, np.asarray(forward(net, c.x[None]))[0]) for c in every]
    stacks = list(boxes.batches(every, options.batch))
    extra = list(boxes.batches(list(zip(also, images, strict=True)), options.batch))
    file = lambda name: options.out / f"{options.network}-{name}.csv"
    for name in options.methods.split(";") if options.methods else METHODS:
        run = partial(measured, name, options.layer, refined)
        given = [(c, *e) for c, e in zip(stacks, extra, strict=True)]
        batches = ((range(options.batch), *g) for g in given)
        measure(file(name), batches, lambda _, b, run=run: run(net, *b[1:]), len(every))
    found: dict[str, Rows] = {name: read(file(name)) for name in METHODS}
    cells = {
        (name, column): value
        for name, rows in found.items()
        if len(rows) == len(every)
        for column, value in summary(rows).items()
    }
    tables.write(options.out / f"{options.network}.csv", cells)
    tables.report(options.out / options.network, cells, published(options.network), digits=2)


if __name__ == "__main__":
    main()
