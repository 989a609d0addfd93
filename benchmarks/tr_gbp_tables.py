"""TR-GBP's Tables 1 and 2 and Fig. 6: what lies in boxes, on the border, and what removals change.

    python benchmarks/tr_gbp_tables.py DATA OUT [--network resnet50 --weights PATH] [--images 500]

EfficientNet-Lite0 unless another network and its weights are given. Columns:

    EBPG          share of the positive attribution in the box, on photographs of VOC2007 with one
                  box that covers at most half of them, each explained for its own class: half of
                  them drawn 5 times, mean and deviation over the draws, in percent, as Table 1 has
                  it for 500 images of ImageNet
    EBPG, eq. 11  the same with negative attribution in both sums, as the equation stands
    IBD: AUC      ROC AUC of the share of magnitudes along the border, 16 pixels wide, as a sign of
                  a wrong prediction, on photographs of ImageNet (DATA/photos) and their predicted
                  classes, the half with the smaller shares left out, in percent (Table 2)
    eq. 12: AUC   the same of signed sums, as the equation stands
    MoRF, LeRF    area under the change of the probability, 0 to 100 % of the pixels zeroed in 20
                  steps, the most relevant first (more is better) or the least (less is better)

Saliency is read by magnitudes, guided backpropagation and guided integrated gradients too for LeRF
(`readings.TR_GBP`); the others are signed, channels summed. Every batch is written to
OUT/NETWORK-SET-METHOD.csv: a run that was stopped resumes there. The table is OUT/NETWORK.md and
.png, the paper's ResNet-50 beside it, or VGG-16 if it is one; OUT/NETWORK.roc.png has the curves of
IBD.
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
from matplotlib.figure import Figure
from readings import TR_GBP, TR_GBP_LEAST, reading
from scoreboard import Rows, Scores, measure, read

import jaxattr
from jaxattr import metrics
from jaxattr.metrics.morf_and_lerf import absolute_change
from jaxattr.scores import probability

METHODS: dict[str, Callable] = {
    "saliency": jaxattr.saliency,
    "guided_backprop": jaxattr.guided_backprop,
    "guided_integrated_gradients": partial(jaxattr.guided_integrated_gradients, steps=50),
    "fullgrad": jaxattr.fullgrad,
    "grad_cam": jaxattr.grad_cam,
    "cameras": partial(jaxattr.cameras, chunk=2),
    "tr_gbp": jaxattr.tr_gbp,
}
PAPER = {
    "saliency": ((40.2, 36.9), (52.84, 51.44)),
    "guided_backprop": ((56.1, 55.4), (53.03, 51.96)),
    "guided_integrated_gradients": ((41.2, 40.6), (53.85, 53.79)),
    "fullgrad": ((41.3, 35.0), (53.72, 54.04)),
    "grad_cam": ((45.7, 40.8), (56.86, 53.06)),
    "cameras": ((45.9, 50.1), (57.00, 54.99)),
    "tr_gbp": ((52.2, 53.4), (60.95, 62.16)),
}
"""Of each method EBPG and the AUC of IBD, each of VGG-16 and ResNet-50, in percent."""
DRAWS = 5


def published(network: str) -> dict[tables.Key, float]:
    """Return the paper's cells for the network that is more like one of its own."""
    which = int(not network.startswith("vgg"))
    pairs = {row: (box[which], border[which]) for row, (box, border) in PAPER.items()}
    return {
        (row, column): value
        for row, pair in pairs.items()
        for column, value in zip(("EBPG", "IBD: AUC"), pair, strict=True)
    }


def in_box(name: str, net: Any, *batch: Any) -> Scores:
    """Measure how much of a batch's maps lies in the boxes."""
    case = boxes.Case(*batch)
    a = METHODS[name](lambda x: net(x))(case.x, case.target)
    share = partial(
        metrics.energy_pointing_game,
        reading(TR_GBP, name)(a, case.x),
        case.boxes,
        sizes=case.size,
    )
    return {"EBPG": share().score, "EBPG, eq. 11": share(signed=True).score}


def on_photographs(name: str, net: Any, x: jax.Array, label: jax.Array) -> Scores:
    """Measure the border's share, and what removed pixels change."""
    f = lambda x: net(x)
    target = f(x).argmax(-1)
    a = METHODS[name](f)(x, target)
    most, least = (reading(paper, name)(a, x) for paper in (TR_GBP, TR_GBP_LEAST))
    options = {"fraction": 1.0, "score": probability, "change": absolute_change, "chunk": 2}
    signed = metrics.boundary_dependency(most, signed=True)
    return {
        "right": target == label,
        "IBD": metrics.boundary_dependency(most).score,
        "eq. 12": signed.score,
        "MoRF": metrics.morf(f, **options)(x, target, most).score,
        "LeRF": metrics.lerf(f, **options)(x, target, least).score,
    }


def repeated(values: np.ndarray) -> tables.Cell:
    """Return mean and deviation, in percent, of the means of halves drawn several times."""
    values = values[np.isfinite(values)]
    draws = [
        np.random.default_rng(i).choice(values, len(values) // 2, replace=False).mean()
        for i in range(DRAWS)
    ]
    return tables.Cell(100 * float(np.mean(draws)), 100 * float(np.std(draws)), len(values))


def kept(rows: Rows, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores, which predictions are wrong, and the half of the larger scores."""
    score = np.array([row[column] for row in rows])
    wrong = np.array([row["right"] == 0 for row in rows])
    return score, wrong, np.asarray(metrics.upper_half(score, np.isfinite(score)))


def summary(found: dict[str, Rows]) -> dict[str, tables.Cell]:
    """Return the columns of a method from its rows on both sets."""
    cells = {c: repeated(np.array([r[c] for r in found["voc"]])) for c in found["voc"][0]}
    for column in ("IBD", "eq. 12"):
        score, wrong, valid = kept(found["photos"], column)
        auc = metrics.roc_auc(jnp.asarray(score), jnp.asarray(wrong), valid=jnp.asarray(valid))
        cells[f"{column}: AUC"] = tables.Cell(100 * float(auc), np.nan, int(valid.sum()))
    return cells | {c: tables.cell(100 * r[c] for r in found["photos"]) for c in ("MoRF", "LeRF")}


def draw(every: dict[str, dict[str, Rows]]) -> Figure:
    """Draw how many wrong predictions are found for how many right ones suspected, by IBD."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    panel = figure.subplots()
    for name, found in every.items():
        score, wrong, valid = kept(found["photos"], "IBD")
        order = wrong[valid][np.argsort(-score[valid], kind="stable")]
        hits, misses = (np.append(0, np.cumsum(o)) for o in (order, ~order))
        panel.plot(misses / max(misses[-1], 1), hits / max(hits[-1], 1), label=name)
    panel.plot([0, 1], [0, 1], color="0.8", zorder=0)
    panel.set(xlabel="right predictions suspected", ylabel="wrong predictions found")
    panel.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--methods", default=";".join(METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pretrained, x, label = sample(options.data, options.network, options.images, options.weights)
    net = pretrained.model
    every = boxes.every_case(options.data, pretrained, options.images)
    alone = [c for c in every if (c.others < 0).all() and boxes.is_one_box(c.boxes)]
    photographs = list(zip(x, label, strict=True))
    file = lambda name, part: options.out / f"{options.network}-{part}-{name}.csv"
    for name in options.methods.split(";"):
        for part, cases, score in (
            ("voc", alone, partial(in_box, name)),
            ("photos", photographs, partial(on_photographs, name)),
        ):
            run, stacks = jax.jit(score), boxes.batches(cases, options.batch)
            measure(file(name, part), stacks, lambda _, b, run=run: run(net, *b), len(cases))
    found = {name: {p: read(file(name, p)) for p in ("voc", "photos")} for name in METHODS}
    done = {
        name: parts
        for name, parts in found.items()
        if len(parts["voc"]) == len(alone) and len(parts["photos"]) == len(x)
    }
    cells = {(name, c): cell for name, parts in done.items() for c, cell in summary(parts).items()}
    tables.write(options.out / f"{options.network}.csv", cells)
    tables.report(options.out / options.network, cells, published(options.network), digits=1)
    draw(done).savefig(options.out / f"{options.network}.roc.png", dpi=120)


if __name__ == "__main__":
    main()
