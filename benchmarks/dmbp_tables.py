"""DMBP's Tables 1 to 3: do the right pixels bring back the class, and its rivals?

    python benchmarks/dmbp_tables.py voc DATA OUT [--network vgg16_voc07 --weights PATH]
    python benchmarks/dmbp_tables.py imagenet DATA OUT [--network resnet50 --weights PATH]

Photographs of VOC (DATA/voc2007; every class that one holds is explained, as by `boxes.py`) or of
ImageNet (DATA/photos, the true class). EfficientNet-Lite0, whose weights a package has, unless
another network and its weights are given. Columns:

    IM            area under the curve of the class's probability as pixels are inserted into the
                  blurred photograph, those of the highest attribution first
    cIM           of the photograph's other classes, those of the lowest first (VOC, where there
                  are any)
    correlation   Spearman's, with the map of the network whose last layer is drawn anew from a
                  normal distribution (Table 3)

Gradient methods are multiplied by the image, as the paper has them (`readings.DMBP`), so that its
"Grad" is its "ND"; the channels are summed. Networks of VOC's own classes have a sigmoid for each.
Every batch is written to OUT/NETWORK-SET-METHOD.csv: a run that was stopped resumes there. The
table is OUT/NETWORK-SET.md and .png, the paper's ResNet-50 beside it, or VGG-16 if it is one.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boxes
import jax
import jax.numpy as jnp
import numpy as np
import tables
from accuracy import sample
from flax import nnx
from readings import DMBP, reading
from scoreboard import Rows, Scores, measure, read

import jaxattr
from jaxattr import metrics, scores
from jaxattr.methods.dmbp import positive, positive_negative
from jaxattr.models import load

IM = {
    "DMBP+": {"voc": (0.62, 0.58), "imagenet": (0.37, 0.50)},
    "DMBP+,-": {"voc": (0.51, 0.59), "imagenet": (0.37, 0.51)},
    "DMBP": {"voc": (0.57, 0.61), "imagenet": (0.41, 0.56)},
    "saliency": {"voc": (0.36, 0.30), "imagenet": (0.23, 0.26)},
    "integrated_gradients": {"voc": (0.43, 0.36), "imagenet": (0.28, 0.30)},
    "smoothgrad": {"voc": (0.55, 0.47), "imagenet": (0.38, 0.40)},
    "blur_integrated_gradients": {"voc": (0.36, 0.27), "imagenet": (0.21, 0.27)},
    "deeplift": {"voc": (0.41, 0.34), "imagenet": (0.30, 0.29)},
    "guided_backprop": {"voc": (0.32, 0.39), "imagenet": (0.32, 0.43)},
    "guided_grad_cam": {"voc": (0.35, 0.50), "imagenet": (0.36, 0.50)},
    "lpr": {"voc": (0.40, 0.40), "imagenet": (0.28, 0.33)},
    "rise": {"voc": (0.41, 0.51), "imagenet": (0.28, 0.33)},
    "fullgrad": {"voc": (0.28, 0.44), "imagenet": (0.43, 0.53)},
    "grad_cam": {"voc": (0.35, 0.51), "imagenet": (0.48, 0.55)},
}
"""Of each method the paper's insertion metric, of VGG-16 and of ResNet-50 (Tables 1 and 2)."""
COMPLEMENTARY = {
    "DMBP+": (0.06, 0.15),
    "DMBP+,-": (0.18, 0.22),
    "DMBP": (0.16, 0.22),
    "saliency": (0.09, 0.15),
    "integrated_gradients": (0.06, 0.16),
    "smoothgrad": (0.06, 0.15),
    "blur_integrated_gradients": (0.08, 0.15),
    "deeplift": (0.07, 0.15),
    "guided_backprop": (0.06, 0.13),
    "guided_grad_cam": (0.12, 0.19),
    "lpr": (0.07, 0.14),
    "rise": (0.13, 0.21),
    "fullgrad": (0.10, 0.14),
    "grad_cam": (0.13, 0.21),
}
CORRELATION = {
    "guided_backprop": {"voc": (0.99, 0.99), "imagenet": (0.99, 0.99)},
    "guided_grad_cam": {"voc": (0.25, 0.28), "imagenet": (0.35, 0.45)},
    "DMBP": {"voc": (0.02, -0.03), "imagenet": (0.00, 0.00)},
}
COLUMNS = ("IM", "cIM", "correlation")


def methods(steps: int) -> dict[str, Callable]:
    """Return the paper's methods by their rows; those of many passes follow their own papers."""
    dmbp = partial(jaxattr.dmbp, steps=steps)
    smooth = partial(jaxattr.smoothgrad, samples=20, chunk=2)
    return {
        "DMBP+": partial(dmbp, loss=positive),
        "DMBP+,-": partial(dmbp, loss=positive_negative),
        "DMBP": dmbp,
        "DMBP, bias terms": partial(dmbp, bias=True),
        "saliency": jaxattr.saliency,
        "integrated_gradients": partial(jaxattr.integrated_gradients, steps=50, chunk=2),
        "smoothgrad": lambda f: smooth(jaxattr.saliency(f)),
        "blur_integrated_gradients": partial(jaxattr.blur_integrated_gradients, steps=50, chunk=2),
        "deeplift": jaxattr.deeplift,
        "guided_backprop": jaxattr.guided_backprop,
        "guided_grad_cam": jaxattr.guided_grad_cam,
        "lpr": jaxattr.lpr,
        "rise": partial(jaxattr.rise, samples=4000, chunk=2),
        "fullgrad": jaxattr.fullgrad,
        "grad_cam": jaxattr.grad_cam,
        "tr_gbp": jaxattr.tr_gbp,
        "lrp": jaxattr.lrp,
        "rsp": jaxattr.rsp,
    }


def published(given: str, network: str) -> dict[tables.Key, float]:
    """Return the paper's cells for a set of photographs, of the network that is more like one."""
    which = int(not network.startswith("vgg"))
    found = {(row, "IM"): of[given][which] for row, of in IM.items()}
    found |= {(row, "correlation"): of[given][which] for row, of in CORRELATION.items()}
    if given == "voc":
        found |= {(row, "cIM"): pair[which] for row, pair in COMPLEMENTARY.items()}
    return found


def measured(
    make: Callable, name: str, step: int, net: Any, anew: Any, x: Any, target: Any, others: Any
) -> Scores:
    """Measure a method's maps of a batch."""
    key = jax.random.key(0)
    explain = lambda net: make(lambda x: net(x))(x, target, key=key)
    a, other = (reading(DMBP, name)(explain(n), x) for n in (net, anew))
    f = lambda x: net(x)
    score = scores.probability if f(x[:1]).shape[-1] > 20 else scores.sigmoid
    found = {
        "IM": metrics.insertion(f, step=step, score=score, chunk=2)(x, target, a).score,
        "correlation": metrics.rank_correlation(a, other).score,
        "cIM": jnp.full(len(x), jnp.nan),
    }
    if others is not None:
        rivals = metrics.complementary_insertion(f, step=step, score=score, chunk=2)
        found["cIM"] = rivals(x, others, a).score
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=("voc", "imagenet"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200, help="of DMBP")
    parser.add_argument("--points", type=int, default=28, help="of the curves, 224 in RISE's")
    parser.add_argument("--methods", help="rows with semicolons between them; by default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.set == "voc":
        pretrained = load(options.network, path=options.weights)
        every = boxes.every_case(options.data, pretrained, options.images)
        stacks = [(c.x, c.target, c.others) for c in boxes.batches(every, options.batch)]
        count = len(every)
    else:
        pretrained, x, label = sample(
            options.data, options.network, options.images, options.weights
        )
        starts = range(0, len(x), options.batch)
        cut = lambda a, i: np.take(a, range(i, i + options.batch), 0, mode="clip")
        stacks, count = [(cut(x, i), cut(label, i), None) for i in starts], len(x)
    net = pretrained.model
    graph, parameters, rest = nnx.split(net, nnx.Param, ...)
    last, normal = net.torch.last, metrics.normal(std=0.01)
    drawn = metrics.randomize_parameters(
        parameters, [last], key=jax.random.key(0), initializer=normal
    )
    anew, step = nnx.merge(graph, drawn, rest), int(np.prod(stacks[0][0].shape[1:3]))
    known = methods(options.steps)
    file = lambda name: options.out / f"{options.network}-{options.set}-{name}.csv"
    for name in options.methods.split(";") if options.methods else known:
        run = jax.jit(partial(measured, known[name], name, step // options.points))
        measure(file(name), stacks, lambda _, batch, run=run: run(net, anew, *batch), count)
    found: dict[str, Rows] = {name: read(file(name)) for name in known}
    cells = {
        (name, column): tables.cell(row[column] for row in rows)
        for name, rows in found.items()
        if len(rows) == count
        for column in COLUMNS
    }
    path = options.out / f"{options.network}-{options.set}"
    tables.write(path.with_suffix(".csv"), cells)
    tables.report(path, cells, published(options.set, options.network), digits=2)


if __name__ == "__main__":
    main()
