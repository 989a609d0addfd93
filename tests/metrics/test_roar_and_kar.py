"""ROAR and KAR replace the pixels that they should."""

import jax
import numpy as np
import pytest

from jaxattr import metrics


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("fraction", [0, 0.3, 0.5, 1])
def test_roar_replaces_the_most_attributed(fraction):
    x, a = images(2, 5, 6, 3), images(2, 5, 6, 3, seed=1)
    mean = np.array([7.0, 8.0, 9.0], np.float32)
    found = np.asarray(metrics.roar(x, a, fraction=fraction, baseline=mean))
    gone = (found == mean).all(-1)
    np.testing.assert_array_equal(gone.sum((1, 2)), round(fraction * 30))
    np.testing.assert_array_equal(found[~gone], x[~gone])
    scores = a.sum(-1)
    for i in range(2):
        assert scores[i][gone[i]].min(initial=np.inf) >= scores[i][~gone[i]].max(initial=-np.inf)


def test_roar_keeps_instead_with_the_negated_map_and_compiles_once():
    x, a = images(1, 4, 4, 3), images(1, 4, 4, 1, seed=1)
    traces = []

    @jax.jit
    def mask(x, a, fraction):
        traces.append(0)
        return metrics.roar(x, a, fraction=fraction)

    removed, kept = mask(x, a, 0.25), mask(x, -a, 0.75)
    assert len(traces) == 1
    np.testing.assert_array_equal(removed + kept, x)
    assert removed.dtype == x.dtype


def test_roar_never_passes_an_image_of_a_broken_map():
    x, a = images(2, 4, 4, 3), images(2, 4, 4)
    a[1, 0, 0] = np.nan
    found = metrics.roar(x, a, fraction=0.5)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[0]).all()
