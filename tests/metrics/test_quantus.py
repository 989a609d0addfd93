"""Metrics beside those of Quantus, on arrays that `reference/make_quantus.py` writes."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr import metrics

FILE = Path(__file__).resolve().parents[1] / "reference" / "quantus.npz"


def test_quantus_has_the_same_numbers():
    with np.load(FILE) as file:
        q = dict(file)
    x, target, a, mask = (q[name] for name in ("x", "target", "maps", "mask"))
    positive = np.abs(a) / np.abs(a).max((1, 2, 3), keepdims=True)
    segments, plain = q["segments"].astype(int), {"score": metrics.logit}
    regions = segments.max() + 1

    def f(x):
        return jax.nn.sigmoid(x.reshape(-1, 64) @ q["weights"] + q["bias"])

    @jax.jit
    def found():
        on = {
            "faithfulness_estimate": metrics.faithfulness_estimate(f, step=4),
            "region_perturbation": metrics.region_perturbation(f, size=2, steps=9, **plain),
            "selectivity": metrics.selectivity(f, size=4, **plain),
        }
        scores = {n: measure(x, target, a) for n, measure in on.items()}
        count = metrics.non_sensitivity(f, tolerance=0.02, **plain)(x, target, positive)
        top = partial(metrics.top_k_intersection, top=10)
        imputed = metrics.linear_imputation(
            x, jnp.zeros((3, 64), bool).at[:, q["gone"]].set(True).reshape(3, 8, 8), tolerance=1e-7
        )
        return scores | {
            "irof": metrics.irof(f, regions=regions, **plain)(x, target, a, segments),
            "attribution_auc": metrics.attribution_auc(a, mask),
            "relevance_rank_accuracy": metrics.relevance_rank_accuracy(a, mask),
            "top_k_intersection": top(a, mask),
            "non_sensitivity": count,
            "relevance_mass_accuracy": metrics.relevance_mass_accuracy(positive, mask),
            "sparseness": metrics.sparseness(positive),
            "complexity": metrics.complexity(positive),
            "imputed": metrics.Score(imputed, True),
        }

    ours = jax.tree.map(np.asarray, found())
    for name in ("region_perturbation", "selectivity"):  # without the whole image
        np.testing.assert_allclose(ours[name].curve[:, 1:], q[name], rtol=1e-4, atol=1e-6)
    for name in ours.keys() - {"region_perturbation", "selectivity", "irof"}:
        np.testing.assert_allclose(ours[name].score, q[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for i in range(3):  # in units of segments, without the whole image
        means = [a[i, ..., 0][segments[i] == s].mean() for s in range(segments[i].max() + 1)]
        first = np.where((segments[i] == np.argmax(means))[..., None], 0, x[i])
        start = (1 + (f(first) / f(x[i]))[0, target[i]]) / 2
        length = len(means)
        theirs = length - length * (1 - ours["irof"].score[i]) + start
        np.testing.assert_allclose(theirs, q["irof"][i], rtol=1e-4)
