"""Every method by every metric that needs no boxes, on photographs, in one table.

    python benchmarks/photographs.py DATA OUT [--images 200] [--methods saliency,grad_cam]

EfficientNet-Lite0 on photographs of ImageNet (DATA/photos), every k-th of them; the class explained
is the predicted one. Each image's scores go to OUT/METHOD.csv after every batch: a run that was
stopped resumes there, one with more methods computes only those, and several runs may share the
methods among them. At the end OUT/table.md and OUT/table.png hold the means over the images that
have a score, with their standard errors:

    insertion, deletion    8 steps, channels summed, probability (higher / lower is better)
    MoRF, LeRF             5 % of the pixels in 5 steps, logit (lower / higher is better)
    incompleteness         how far the map's sum is from f(x) - f(0), in logits (lower)
    infidelity             10 squares of 32 x 32 pixels set to zero, the map's best multiple,
                           maps that are gradients multiplied by the image (lower)
    max-sensitivity        3 draws, the first 8 images (lower)
    random layer           Spearman's correlation of magnitudes, and SSIM of magnitudes in [0, 1],
                           with the map of the model whose last layer is random, the first 24 images
                           (lower)
    border                 share of the attribution in the 16 pixels along the border (IBD); its
                           ROC AUC as a sign of a wrong prediction, after the half with the smaller
                           share is left out

Methods of many steps or samples take fewer than by default: see `FEWER` in `scoreboard.py`. Noise
(`random`) and a map of the image's center (`center`) are controls. `differences.py` compares two.
`boxes.py` has the metrics that need boxes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import photographs
from flax import nnx
from scoreboard import Rows, Scores, Summary, attribution, explain, means, measure, parser, run

from jaxattr import metrics
from jaxattr.image import maps
from jaxattr.models import load

GRADIENTS = {
    "saliency",
    "guided_backprop",
    "deconvnet",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
}
STEP = 224 * 224 // 8
RANDOMIZED, SHAKEN = 24, 8
"""Images on which the random layer is tried, and on which max-sensitivity is measured."""

COLUMNS = ("insertion", "deletion", "MoRF", "LeRF", "incompleteness", "infidelity")
COLUMNS += ("max-sensitivity", "random layer: ranks", "random layer: SSIM", "border")


@partial(jax.jit, static_argnames="chunk")
def scores(
    net: Callable,
    x: jax.Array,
    target: jax.Array,
    a: jax.Array,
    share: jax.Array,
    key: jax.Array,
    *,
    chunk: int,
) -> Scores:
    """Measure maps `a`, and `share`, what of the logit they attribute."""
    f = lambda x: net(x)
    kept = lambda m: f(jnp.tile(x, (len(m) // len(x), 1, 1, 1)) * m)
    squares = metrics.infidelity(kept, perturb=metrics.square(size=32), rescale=True, chunk=chunk)
    found = {
        "insertion": metrics.insertion(f, step=STEP, chunk=chunk)(x, target, a),
        "deletion": metrics.deletion(f, step=STEP, chunk=chunk)(x, target, a),
        "MoRF": metrics.morf(f, steps=5, chunk=chunk)(x, target, a),
        "LeRF": metrics.lerf(f, steps=5, chunk=chunk)(x, target, a),
        "incompleteness": metrics.completeness_error(f)(x, target, share),
        "infidelity": squares(jnp.ones_like(x), target, share, key=key),
        "border": metrics.boundary_dependency(a),
    }
    return {k: v.score for k, v in found.items()}


@jax.jit
def likeness(a: jax.Array, other: jax.Array) -> Scores:
    """Compare maps with those of the model whose last layer is random."""
    ranks = metrics.rank_correlation(a, other, reduce=metrics.magnitude_sum)
    similar = metrics.ssim(_magnitudes(a), _magnitudes(other))
    return {"random layer: ranks": ranks.score, "random layer: SSIM": similar.score}


@partial(jax.jit, static_argnames="name")
def sensitivity(
    name: str, net: Callable, x: jax.Array, target: jax.Array, key: jax.Array
) -> Scores:
    """Measure by how much a method's maps change with the image."""
    measure = metrics.max_sensitivity(attribution(name, net), samples=3)
    return {"max-sensitivity": measure(x, target, key=key).score}


def _magnitudes(a: jax.Array) -> jax.Array:
    return maps.unit_range(jnp.abs(a).sum(-1, keepdims=True))


def batches(data: Path, images: int, size: int, preprocess: Callable) -> Iterator[tuple]:
    """Yield stacks of every k-th photograph with their true classes."""
    chosen = islice(photographs(data), 0, 700 // images * images, 700 // images)
    while group := list(islice(chosen, size)):
        yield np.stack([preprocess(image) for image, _ in group]), np.array([c for _, c in group])


def summary(rows: Rows) -> Summary:
    """Return means and standard errors, and the ROC AUC of the border."""
    border = jnp.array([row["border"] for row in rows])
    wrong = jnp.array([not row["right"] for row in rows])
    kept = metrics.upper_half(border, jnp.isfinite(border))
    auc = metrics.roc_auc(border, wrong, valid=kept)
    error = auc_error(float(auc), int((wrong & kept).sum()), int((~wrong & kept).sum()))
    return means(rows, COLUMNS) | {"border: AUC": (float(auc), error)}


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Return the standard error of a ROC AUC (Hanley and McNeil, 1982)."""
    both = (auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2)
    variance = auc * (1 - auc) + (positives - 1) * both[0] + (negatives - 1) * both[1]
    return (variance / (positives * negatives)) ** 0.5


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    net, preprocess, _ = load("efficientnet_lite0")
    graph, parameters, rest = nnx.split(net, nnx.Param, ...)
    key = jax.random.key(0)
    random = nnx.merge(graph, metrics.randomize_parameters(parameters, ["fc"], key=key), rest)
    forward = jax.jit(lambda net, x: net(x))

    def measured(name: str, start: int, batch: tuple[np.ndarray, np.ndarray]) -> Scores:
        x, label = batch
        target = forward(net, x).argmax(-1)
        a = explain(name, net, x, target, key)
        share = a * x if name in GRADIENTS else a
        found = {"right": jnp.equal(target, label)}
        found |= dict.fromkeys(COLUMNS, jnp.full(len(x), jnp.nan))
        found |= scores(net, x, target, a, share, key, chunk=options.chunk)
        if start < RANDOMIZED:
            found |= likeness(a, explain(name, random, x, target, key))
        if start < SHAKEN:
            found |= sensitivity(name, net, x, target, key)
        return found

    def one(name: str, path: Path) -> Rows:
        images = batches(options.data, options.images, options.batch, preprocess)
        return measure(path, images, partial(measured, name), options.images)

    run(options, one, summary)


if __name__ == "__main__":
    main()
