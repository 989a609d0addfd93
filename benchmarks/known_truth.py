"""Which methods find what makes the class, where it is known?

    python benchmarks/known_truth.py WEIGHTS OUT [--images 128] [--untrained] [--methods lrp]

The network of four convolutions that learned the pictures of `jaxattr.data.shapes` (WEIGHTS is
what `train.py shapes_cnn` wrote), on test pictures that it recognizes. Two shapes make the class,
and two others are there in every class alike. Files are written as by `photographs.py`.
OUT/table.md and OUT/table.png hold

    mass          share of the positive attribution in the two shapes
    rank          share of as many pixels of the highest attribution as these have in them
    AUC           how well the attribution tells their pixels from all others
    distractors   share of the positive attribution in the shapes that distract; lower is better
    parts         how often the shape of the two whose removal costs more of the logit has the
                  larger sum, the picture being drawn without it
    IDSDS         rank correlation of 4 x 4 patches with what the removal of each does; meant for a
                  network of `train.py --removed`, which is used to missing patches
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scoreboard import CONTROLS, FEWER, Rows, Scores, Summary, means, measure, parser, run
from train import NETWORKS, scale, shapes

from jaxattr import catalogue, metrics, scores
from jaxattr.data.shapes import Picture, picture
from weights_conversion import restore

COLUMNS = ("mass", "rank", "AUC", "distractors", "parts", "IDSDS")
OPTIONS = FEWER | {"score_cam": {}, "cameras": {}, "occlusion": {"window": 5, "stride": 2}}
"""Options of methods of many passes, for images of 32 x 32."""


class Case(NamedTuple):
    """Pictures and their classes, the same without each of the two shapes, and where all are."""

    x: np.ndarray
    target: np.ndarray
    cut: np.ndarray
    parts: np.ndarray
    distractors: np.ndarray


def cases(net: Callable, images: int, size: int, prepare: Callable, *, least: float) -> list[Case]:
    """Make batches of pictures that the network recognizes, of which there must be a share."""
    predict, found, start = jax.jit(lambda net, x: net(x).argmax(-1)), [], 0
    while len(found) < images:
        drawn = [picture(start + i) for i in range(size)]
        x = np.stack([prepare(p) for p in drawn])
        for i, label in enumerate(np.asarray(predict(net, x))):
            if label == drawn[i].label:
                cut = [prepare(picture(start + i, without=(part,))) for part in (0, 1)]
                known = drawn[i].parts, drawn[i].distractors
                found.append(Case(x[i], label, np.stack(cut), *known))
        start += size
        if len(found) < least * start:
            raise ValueError(f"the network recognizes {len(found)} of {start} pictures: train it")
    groups = [found[i : i + size] for i in range(0, images, size)]
    return [Case(*map(np.stack, zip(*group, strict=True))) for group in groups]


@partial(jax.jit, static_argnames="name")
def explained(name: str, net: Callable, case: Case, key: jax.Array) -> Scores:
    """Explain a batch, and measure the maps."""
    f = lambda x: net(x)
    build = lambda: catalogue.build(catalogue.find(name), f, **OPTIONS.get(name, {}))
    a = (CONTROLS.get(name) or build())(case.x, case.target, key=key)
    truth, others = (jnp.asarray(m) for m in (case.parts.any(1), case.distractors))
    logit = lambda x: scores.logit(f(x), jnp.asarray(case.target))
    drop = [logit(case.x) - logit(case.cut[:, i]) for i in (0, 1)]
    told = [jnp.where(case.parts[:, i, ..., None], a, 0).sum((1, 2, 3)) for i in (0, 1)]
    return {
        "mass": metrics.relevance_mass_accuracy(a, truth).score,
        "rank": metrics.relevance_rank_accuracy(a, truth).score,
        "AUC": metrics.attribution_auc(a, truth).score,
        "distractors": metrics.relevance_mass_accuracy(a, others).score,
        "IDSDS": metrics.idsds(f)(case.x, case.target, a).score,
        "parts": ((drop[0] > drop[1]) == (told[0] > told[1])).astype(float),
    }


def main() -> None:
    given = parser(__doc__ or "")
    given.add_argument("--untrained", action="store_true", help="with random weights")
    options = given.parse_args()
    net = NETWORKS["shapes_cnn"]()
    if not options.untrained:
        nnx.update(net, restore(options.data / "weights", net))
    net.eval()
    mean, deviation = scale(shapes(Path()))

    def prepare(drawn: Picture) -> np.ndarray:
        return ((drawn.image / np.float32(255) - mean) / deviation).astype(np.float32)

    least = 0 if options.untrained else 0.5
    every = cases(net, options.images, options.batch, prepare, least=least)

    def one(name: str, path: Path) -> Rows:
        scored = lambda start, case: explained(name, net, case, jax.random.key(0))
        return measure(path, every, scored, options.images)

    def summary(rows: Rows) -> Summary:
        return means(rows, COLUMNS)

    run(options, one, summary)


if __name__ == "__main__":
    main()
