"""Does a map lie in the cell of its class? The grid pointing game, and how concise maps are.

    python benchmarks/grids.py DATA OUT [--images 100] [--methods grad_cam,lrp]

EfficientNet-Lite0 on grids of 2 x 2 photographs of different ImageNet classes (DATA/photos, every
seventh in turn), each recognized alone with a probability above .9; `--images` is the number of
cells, each explained once for the class of its photograph. Files are written as by
`photographs.py`. OUT/table.md and OUT/table.png hold

    sum, positive, magnitude   share of the positive attribution in the cell, with channels summed,
                               with their positive parts summed, and with their magnitudes
    sparseness, complexity     of the summed map: its Gini index, and the pixels that as high an
                               entropy would have evenly, as a share of all
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import photographs
from scoreboard import Rows, Scores, Summary, explain, means, measure, parser, run

from jaxattr import metrics
from jaxattr.models import load

CELLS, CONFIDENCE = 2, 0.9
COLUMNS = ("sum", "positive", "magnitude", "sparseness", "complexity")


def recognized(data: Path, net: Callable, preprocess: Callable) -> Iterator[np.ndarray]:
    """Yield the photographs, spread over the classes, that the model is sure and right about."""
    confident = jax.jit(lambda net, x: jax.nn.softmax(net(x)))
    for first in range(7):
        for image, label in islice(photographs(data), first, None, 7):
            x = preprocess(image)
            if confident(net, x[None])[0, label] > CONFIDENCE:
                yield x, label


def batches(data: Path, net: Callable, preprocess: Callable) -> Iterator[tuple]:
    """Yield a grid for each of its cells, with classes and cells."""
    group = []
    for found in recognized(data, net, preprocess):
        group.append(found)
        if len(group) == CELLS**2:
            x, labels = map(np.stack, zip(*group, strict=True))
            grid = np.asarray(metrics.image_grids(x, cells=CELLS))
            every = np.broadcast_to(grid, (CELLS**2, *grid.shape[1:]))
            yield every, labels, np.arange(CELLS**2)
            group = []


@jax.jit
def scores(a: jax.Array, cell: jax.Array) -> Scores:
    """Measure maps of grids."""
    game = partial(metrics.grid_pointing_game, a, cell, cells=CELLS)
    found = {
        "sum": game(),
        "positive": game(reduce=metrics.positive_sum),
        "magnitude": game(reduce=metrics.magnitude_sum),
        "sparseness": metrics.sparseness(a),
        "complexity": metrics.complexity(a),
    }
    pixels = a.shape[1] * a.shape[2]
    kept = {k: v.score for k, v in found.items()}
    return kept | {"complexity": jnp.exp(kept["complexity"]) / pixels}


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    net, preprocess, _ = load("efficientnet_lite0")
    key = jax.random.key(0)
    grids = list(islice(batches(options.data, net, preprocess), -(-options.images // CELLS**2)))

    def measured(name: str, start: int, batch: tuple) -> Scores:
        x, labels, cell = batch
        parts = [
            explain(name, net, x[i : i + options.batch], labels[i : i + options.batch], key)
            for i in range(0, len(x), options.batch)
        ]
        return scores(jnp.concatenate(parts), cell)

    def one(name: str, path: Path) -> Rows:
        return measure(path, grids, partial(measured, name), options.images)

    def summary(rows: Rows) -> Summary:
        return means(rows, COLUMNS)

    run(options, one, summary)


if __name__ == "__main__":
    main()
