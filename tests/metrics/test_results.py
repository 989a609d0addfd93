"""Means of scores leave out what has none."""

import jax.numpy as jnp
import numpy as np

from jaxattr import metrics


def test_class_means_leave_out_classes_that_are_not_there():
    score = jnp.array([1.0, 0.0, 1.0, jnp.nan, 0.0])
    valid, target = ~jnp.isnan(score), jnp.array([0, 0, 2, 2, 4])
    found = metrics.class_means(score, valid, target, classes=5)
    np.testing.assert_allclose(found.classes, [0.5, np.nan, 1, np.nan, 0])
    np.testing.assert_allclose(found.mean, 0.5)
    assert found.number.tolist() == [2, 0, 1, 0, 1]
