"""Metrics of subsets of pixels and of grids in NumPy, one image at a time, as they are defined."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxattr import metrics

SHAPE = BATCH, HEIGHT, WIDTH = 2, 5, 6
PIXELS = HEIGHT * WIDTH
X = np.random.default_rng(0).integers(1, 9, (*SHAPE, 3)).astype(np.float32)
TARGET = np.array([0, 2])
KEY = jax.random.key(0)


def f(x):
    """Sum each channel."""
    return x.sum((1, 2))


def fifth(logits, target):
    """Measure a part of the logit, less than 1."""
    return metrics.logit(logits, target) / 512


def positive(a):
    """Make a discrete map: whether its sum is positive."""
    return a.sum((1, 2)) > 0


SCORE = {"score": metrics.logit}
SIZES, SAMPLES = (4, 11), 5
CELLS = np.arange(HEIGHT)[:, None] * 2 // HEIGHT * 2 + np.arange(WIDTH) * 2 // WIDTH
SQUARES = np.arange(HEIGHT)[:, None] // 2 * 3 + np.arange(WIDTH) // 2
SEGMENTS = np.broadcast_to(np.arange(PIXELS).reshape(HEIGHT, WIDTH) ** 2 // 400, SHAPE)
DRAWN = [
    np.asarray(jax.random.permutation(jax.random.fold_in(KEY, i), PIXELS)).reshape(HEIGHT, WIDTH)
    for i in range(2 * SAMPLES)
]
NOISE = [
    np.asarray(jax.random.uniform(jax.random.fold_in(KEY, i), (HEIGHT, WIDTH, 3)), float)
    for i in range(10)
]

MEASURES = {
    "grid_pointing_game": lambda a, mask, x=X, t=TARGET: metrics.grid_pointing_game(a, 0 * t),
    "focus": lambda a, mask, x=X, t=TARGET: metrics.focus(
        a, jnp.broadcast_to(jnp.array([True, False, False, True]), (len(t), 4))
    ),
    "average_drop": lambda a, mask, x=X, t=TARGET: metrics.average_drop(f, **SCORE)(x, t, a),
    "average_increase": lambda a, mask, x=X, t=TARGET: metrics.average_increase(f, **SCORE)(
        x - 5, t, a
    ),
    "average_gain": lambda a, mask, x=X, t=TARGET: metrics.average_gain(f, score=fifth)(
        x - 5, t, a
    ),
    "srg": lambda a, mask, x=X, t=TARGET: metrics.srg(f, steps=5, **SCORE)(x, t, a),
    "road": lambda a, mask, x=X, t=TARGET: metrics.road(f, fraction=0.8, steps=2, noise=0, **SCORE)(
        x, t, a, key=KEY
    ),
    "faithfulness_correlation": lambda a, mask, x=X, t=TARGET: metrics.faithfulness_correlation(
        f, size=SIZES[0], samples=SAMPLES
    )(x, t, a, key=KEY),
    "sensitivity_n": lambda a, mask, x=X, t=TARGET: metrics.sensitivity_n(
        f, counts=SIZES, samples=SAMPLES
    )(x, t, a, key=KEY),
    "faithfulness_estimate": lambda a, mask, x=X, t=TARGET: metrics.faithfulness_estimate(
        f, step=7
    )(x, t, a),
    "idsds": lambda a, mask, x=X, t=TARGET: metrics.idsds(f, cells=2)(x, t, a),
    "monotonicity": lambda a, mask, x=X, t=TARGET: metrics.monotonicity(
        f, step=7, baseline=3.0, **SCORE
    )(x, t, a),
    "monotonicity_correlation": lambda a, mask, x=X, t=TARGET: metrics.monotonicity_correlation(
        f, step=7, samples=2, **SCORE
    )(x, t, a, key=KEY),
    "non_sensitivity": lambda a, mask, x=X, t=TARGET: metrics.non_sensitivity(
        f, size=2, baseline=lambda x: jnp.where(x > 4, x, 0), **SCORE
    )(x, t, a),
    "region_perturbation": lambda a, mask, x=X, t=TARGET: metrics.region_perturbation(
        f, size=2, steps=4, **SCORE
    )(x, t, a),
    "selectivity": lambda a, mask, x=X, t=TARGET: metrics.selectivity(f, size=2, **SCORE)(x, t, a),
    "irof": lambda a, mask, x=X, t=TARGET: metrics.irof(f, regions=4, **SCORE)(
        x, t, a, SEGMENTS[: len(x)]
    ),
    "sparseness": lambda a, mask, x=X, t=TARGET: metrics.sparseness(a),
    "complexity": lambda a, mask, x=X, t=TARGET: metrics.complexity(a),
    "effective_complexity": lambda a, mask, x=X, t=TARGET: metrics.effective_complexity(
        a, tolerance=0.25
    ),
    "relevance_mass_accuracy": lambda a, mask, x=X, t=TARGET: metrics.relevance_mass_accuracy(
        a, mask
    ),
    "relevance_rank_accuracy": lambda a, mask, x=X, t=TARGET: metrics.relevance_rank_accuracy(
        a, mask
    ),
    "top_k_intersection": lambda a, mask, x=X, t=TARGET: metrics.top_k_intersection(a, mask, top=7),
    "attribution_auc": lambda a, mask, x=X, t=TARGET: metrics.attribution_auc(a, mask),
    "efficient_mprt": lambda a, mask, x=X, t=TARGET: metrics.efficient_mprt(a, x, bins=8),
    "consistency": lambda a, mask, x=X, t=TARGET: metrics.consistency(
        a, mask[:, 0, 0].astype(int), discretize=positive
    ),
    "sufficiency": lambda a, mask, x=X, t=TARGET: metrics.sufficiency(
        a, mask[:, 0, 0].astype(int), threshold=1
    ),
}
"""Each metric of maps, as a function of a map and a mask, and perhaps images and classes."""


def expected(a, mask, x, t):
    """Return the score of every metric for one image, NaN where there is none."""
    part, energy, size = x[..., t].astype(float), np.maximum(a, 0), np.abs(a)
    ranks, whole = order_of(a), float(part.sum())
    shown = (a - a.min()) / (np.ptp(a) or 1)
    kept = (part - 5).sum(), ((part - 5) * shown).sum()
    sevenths, noisy = ([r // 7 == i for i in range(5)] for r in (ranks, order_of(size)))
    low, high = x.min(), x.max()
    moved = [
        np.mean(
            [(part - low - (high - low) * NOISE[2 * i + j][..., t])[s].sum() ** 2 for j in (0, 1)]
        )
        for i, s in enumerate(noisy)
    ]
    squares = [i == SQUARES for i in range(9)]
    unit = size / (size.max() or 1)
    removed = by_region(a, part, SQUARES, np.sum)
    segments = by_region(a, part, SEGMENTS[0], np.mean) / whole
    correlations = [
        linear([a[d < n].sum() for d in drawn], [part[d < n].sum() for d in drawn])
        for n, drawn in zip(SIZES, (DRAWN[:SAMPLES], DRAWN[SAMPLES:]), strict=True)
    ]
    added = [np.where(order_of(-size) < 7 * i, part, 3).sum() for i in range(6)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "grid_pointing_game": energy[:3, :3].sum() / energy.sum(),
            "focus": energy[(CELLS == 0) | (CELLS == 3)].sum() / energy.sum(),
            "average_drop": max(whole - (part * shown).sum(), 0) / whole,
            "average_increase": float(kept[0] < kept[1]),
            "average_gain": max(kept[1] - kept[0], 0) / (512 - kept[0]),
            "srg": np.trapezoid([left(-a, part, 6 * i) - left(a, part, 6 * i) for i in range(6)])
            / 5,
            "road": np.trapezoid([imputed(part, ranks < n) for n in (0, 12, 24)]) / 2,
            "faithfulness_correlation": correlations[0],
            "sensitivity_n": np.mean(correlations),
            "faithfulness_estimate": linear(*sums(sevenths, a, part)),
            "idsds": ranked(*sums([i == CELLS for i in range(4)], a, part)),
            "monotonicity": float((np.diff(added) >= 0).all()),
            "monotonicity_correlation": ranked([size[s].sum() for s in noisy], moved),
            "non_sensitivity": sum((unit[s].sum() <= 1e-5) != (part[s] > 4).all() for s in squares),
            "region_perturbation": (whole - removed[:5]).mean(),
            "selectivity": np.trapezoid(removed) / 9,
            "sparseness": np.abs(size.ravel()[:, None] - size.ravel()).sum()
            / (2 * PIXELS * size.sum()),
            "complexity": scipy.stats.entropy(size.ravel() / size.sum()) if size.any() else np.nan,
            "effective_complexity": (size > size.max() / 4).sum() if size.any() else np.nan,
            "relevance_mass_accuracy": energy[mask].sum() / energy.sum() if mask.any() else np.nan,
            "relevance_rank_accuracy": (ranks < mask.sum())[mask].sum() / mask.sum(),
            "top_k_intersection": (ranks < 7)[mask].sum() / 7 if mask.any() else np.nan,
            "attribution_auc": pairs(a.ravel(), mask.ravel()),
            "efficient_mprt": histogram(x.sum(-1)) / histogram(a) - 1 if np.ptp(a) else np.nan,
            "irof": 1 - np.trapezoid(segments) / (len(segments) - 1),
        }


def order_of(a):
    """Return the rank of every pixel, 0 for the largest."""
    return np.argsort(np.argsort(-a.ravel(), kind="stable"), kind="stable").reshape(a.shape)


def left(a, part, count):
    """Return the logit without the `count` most attributed pixels."""
    return part[order_of(a) >= count].sum()


def together(a, mask):
    """Return the scores of metrics that compare the two images of a batch with each other."""
    if not np.isfinite(a).all():
        return dict.fromkeys(("consistency", "sufficiency"), np.full(2, np.nan))
    same = float(mask[0, 0, 0] == mask[1, 0, 0])
    alike = positive(a)[0] == positive(a)[1]
    return {
        "consistency": np.full(2, same if alike else np.nan),
        "sufficiency": np.full(2, same),
    }


def pairs(score, positive):
    """Return the ROC AUC as it is defined, a pair after another."""
    p, n = score[positive][:, None], score[~positive]
    known = len(p) and len(n) and not np.isnan(score).any()
    return ((p > n) + 0.5 * (p == n)).mean() if known else np.nan


def histogram(a):
    return scipy.stats.entropy(np.histogram(a, bins=8)[0])


def sums(subsets, a, part):
    return [a[s].sum() for s in subsets], [part[s].sum() for s in subsets]


def linear(p, q):
    return np.corrcoef(p, q)[0, 1] if np.ptp(p) and np.ptp(q) else np.nan


def ranked(p, q):
    return scipy.stats.spearmanr(p, q)[0] if np.ptp(p) and np.ptp(q) else np.nan


def by_region(a, part, labels, mean):
    """Return what is left of an image as its regions are removed, best first."""
    regions = [labels == i for i in range(labels.max() + 1)]
    order = np.argsort([-mean(a[r]) for r in regions], kind="stable")
    gone = np.cumsum([0.0] + [part[regions[i]].sum() for i in order])
    return part.sum() - gone


AT = np.array(list(np.ndindex(HEIGHT, WIDTH)))
APART = ((AT[:, None] - AT) ** 2).sum(-1)
NEAR = np.where(APART == 1, 2.0, APART == 2) / 12
NEAR /= NEAR.sum(1, keepdims=True)


def imputed(part, gone):
    """Sum an image whose removed pixels solve the linear system of ROAD."""
    gone = gone.ravel()
    matrix = np.eye(PIXELS) - np.where(gone[:, None], NEAR, 0)
    return np.linalg.solve(matrix, np.where(gone, 0, part.ravel())).sum()
