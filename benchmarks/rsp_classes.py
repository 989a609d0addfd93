"""RSP on photographs of two classes: is the target positive and the hostile class negative?

    python benchmarks/rsp_classes.py DATA OUT [--images 24]

Photographs of VOC2007 (DATA/voc2007) with two labeled classes, squashed to 224 x 224, and
EfficientNet-Lite0. A VOC class is explained as the ImageNet class of the largest logit among those
that belong to it (`VOC_IN_IMAGENET`; a person is known by what people wear). Each of the two is the
target once and hostile once. What lies in the boxes of both is left out.

OUT.md holds the table, OUT.png some of the maps. The table says how much of a map's positive part
lies in the boxes of the target (own) and of the other class, how much of its negative part, in
percent; `sides` is how many of the maps sum to more than zero in the target's boxes *and* to less
in the other's. All pairs (L), and those of which both classes are among the ten largest logits (P).
`area` is a map of ones.
"""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from voc import SIZE, likeliest, photographs

import jaxattr
from jaxattr import metrics, viz
from jaxattr.models import Pretrained, load

BATCH, TOP = 4, 10

Method = Callable[[jaxattr.Fun, jax.Array, jax.Array, jax.Array], jax.Array]
METHODS: dict[str, Method] = {
    "rsp": lambda f, x, t, h: jaxattr.rsp(f, hostile=h)(x, t),
    "rsp, no purge": lambda f, x, t, h: jaxattr.rsp(f, hostile=h, purge=False)(x, t),
    "contrastive_rsp": lambda f, x, t, h: jaxattr.contrastive_rsp(f)(x, t),
    "contrastive_excitation_backprop": lambda f, x, t, h: jaxattr.contrastive_excitation_backprop(
        f
    )(x, t),
    "rap": lambda f, x, t, h: jaxattr.rap(f)(x, t),
    "lrp": lambda f, x, t, h: jaxattr.lrp(f)(x, t),
    "grad_cam, signed": lambda f, x, t, h: jaxattr.grad_cam(f, relu=False)(x, t),
}


class Pair(NamedTuple):
    """A photograph of two classes, with boxes `(n, 4)` of rows and columns as in `SIZE`."""

    image: Image.Image
    labels: tuple[str, str]
    boxes: tuple[np.ndarray, np.ndarray]


class Case(NamedTuple):
    """A pair with one of its classes as the target.

    Attributes:
        x: the model's input.
        target: the ImageNet class of the first label, and `hostile` of the second.
        own: where the first alone is, `(SIZE, SIZE)`; `other` the second.
        predicted: whether both are among the largest logits.
    """

    pair: Pair
    x: np.ndarray
    target: int
    hostile: int
    own: np.ndarray
    other: np.ndarray
    predicted: bool


def pairs(data: Path) -> Iterator[Pair]:
    """Read the photographs and every two of their classes, both ways."""
    for _, image, objects in photographs(data):
        scale = SIZE / np.array([image.height, image.width] * 2)
        for a, b in permutations(objects, 2):
            own, other = ((o.boxes * scale).round().astype(int) for o in (a, b))
            yield Pair(image.resize((SIZE, SIZE)), (a.label, b.label), (own, other))


def case(pretrained: Pretrained, logits: Callable, pair: Pair) -> Case:
    """Find the classes and the regions of a pair."""
    x = pretrained.preprocess._replace(resize_size=SIZE)(pair.image)
    scores = np.asarray(logits(pretrained.model, x[None]))[0]
    target, hostile = (likeliest(scores, label) for label in pair.labels)
    own, other = (metrics.box_masks(b, (SIZE, SIZE)) for b in pair.boxes)
    largest = set(np.argsort(scores)[-TOP:])
    predicted = {target, hostile} <= largest
    return Case(pair, x, target, hostile, own & ~other, other & ~own, predicted)


def maps_of(method: Method, pretrained: Pretrained, cases: list[Case]) -> np.ndarray:
    """Explain every case, channels summed: `(n, SIZE, SIZE)`."""
    graph, state = nnx.split(pretrained.model)

    @jax.jit
    def explain(state, x, target, hostile):
        model = nnx.merge(graph, state)
        return jaxattr.heatmap(method(lambda x: model(x), x, target, hostile[:, None]))

    found = []
    for i in range(0, len(cases), BATCH):
        part = [cases[j % len(cases)] for j in range(i, i + BATCH)]
        x = jnp.stack([c.x for c in part])
        classes = jnp.array([(c.target, c.hostile) for c in part])
        found.append(explain(state, x, classes[:, 0], classes[:, 1]))
    return np.concatenate(found)[: len(cases)]


def row(name: str, maps: np.ndarray, cases: list[Case]) -> str:
    """Measure a method: a row of the table."""
    regions = [np.stack([getattr(c, k) for c in cases]) for k in ("own", "other")]
    cells = []
    for part in (np.maximum(maps, 0), np.maximum(-maps, 0)):
        total = part.sum((1, 2))
        for region in regions:
            inside = (part * region).sum((1, 2))
            seen = total > 0
            share = 100 * (inside[seen] / total[seen]).mean() if seen.any() else np.nan
            cells.append(f"{share:.1f}" if seen.any() else "-")
    own, other = ((maps * region).sum((1, 2)) for region in regions)
    cells.append(f"{100 * ((own > 0) & (other < 0)).mean():.0f} %")
    return f"| {name} | {' | '.join(cells)} |"


def table(found: dict[str, np.ndarray], cases: list[Case]) -> str:
    """Return the tables of all cases and of the predicted ones."""
    parts = []
    predicted = np.array([c.predicted for c in cases])
    for title, keep in (("L: all pairs", predicted | True), ("P: both predicted", predicted)):
        chosen = [c for c, k in zip(cases, keep, strict=True) if k]
        parts.append(f"{title}, {len(chosen)} maps\n")
        parts.append("| | + own | + other | - own | - other | sides |\n|---|---|---|---|---|---|")
        area = np.ones((len(cases), SIZE, SIZE))
        for name, maps in {"area": area, **found}.items():
            parts.append(row(name, maps[keep], chosen) if chosen else f"| {name} |")
        parts.append("")
    return "\n".join(parts)


def picture(found: dict[str, np.ndarray], cases: list[Case], rows: int = 6) -> Figure:
    """Draw the first predicted cases: the photograph with its boxes, and every map."""
    shown = sorted(range(len(cases)), key=lambda i: not cases[i].predicted)[:rows]
    shown.sort()
    columns = 1 + len(found)
    figure = Figure(figsize=(1.7 * columns, 1.85 * len(shown)), layout="compressed", dpi=130)
    axes = figure.subplots(len(shown), columns, squeeze=False)
    for line, i in zip(axes, shown, strict=True):
        c = cases[i]
        line[0].imshow(c.pair.image)
        line[0].set_title(f"{c.pair.labels[0]}, not {c.pair.labels[1]}", fontsize=7)
        for boxes, color in zip(c.pair.boxes, ("#d33", "#37c"), strict=True):
            for top, left, bottom, right in boxes:
                box = Rectangle((left, top), right - left, bottom - top)
                box.set(fill=False, edgecolor=color, linewidth=1)
                line[0].add_patch(box)
        for ax, (name, maps) in zip(line[1:], found.items(), strict=True):
            ax.imshow(viz.scale(maps[i]).to_rgba(maps[i]))
            ax.set_title(name if i == shown[0] else "", fontsize=7)
    for ax in axes.ravel():
        ax.set_axis_off()
    return figure


def main() -> None:
    """Explain, measure and draw."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=24, help="pairs; each is explained both ways")
    given = parser.parse_args()
    pretrained = load("efficientnet_lite0")
    logits = jax.jit(lambda model, x: model(x))
    every = [case(pretrained, logits, p) for p in pairs(given.data / "voc2007")]
    # the predicted ones first: of each photograph both orders follow each other
    ordered = [c for keep in (True, False) for c in every if c.predicted is keep]
    cases = [c for c in ordered if c.own.any() and c.other.any()][: 2 * given.images]
    found = {}
    for name, method in METHODS.items():
        found[name] = maps_of(method, pretrained, cases)
        print(name, flush=True)
    text = table(found, cases)
    print(text)
    given.out.with_suffix(".md").write_text(text)
    picture(found, cases).savefig(given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
