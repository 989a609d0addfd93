"""Grids of images, and classifiers that see them cell by cell; imputed pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr import metrics

X = jax.random.normal(jax.random.key(0), (8, 4, 6, 3))
WEIGHTS = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))


def net(x):
    with jax.named_scope("features"):
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, WEIGHTS, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    return x.mean((1, 2)) @ jnp.arange(10.0).reshape(5, 2)


def pointwise(x):
    with jax.named_scope("features"):
        x = jax.nn.relu(x @ WEIGHTS[0, 0])
    return x.mean((1, 2)) @ jnp.arange(10.0).reshape(5, 2)


@jax.jit
def logits(x):
    grids = metrics.image_grids(x)
    full = lambda grids: metrics.difull(net)(grids)[:, 3]  # class 1 of cell 1
    return {
        "grids": grids,
        "alone": net(x),
        "full": metrics.difull(net)(grids),
        "gradient": jax.grad(lambda g: full(g).sum())(grids),
        "part": metrics.dipart(pointwise, layer="features")(grids),
        "pointwise": pointwise(x),
        "near": jax.grad(lambda g: metrics.dipart(net)(g)[:, 3].sum())(grids),
    }


def test_cells_are_seen_alone():
    found = jax.tree.map(np.asarray, logits(X))
    np.testing.assert_array_equal(found["grids"][1, 4:, :6], X[6])
    np.testing.assert_allclose(found["full"].reshape(8, 2), found["alone"], rtol=1e-5)
    np.testing.assert_allclose(found["part"].reshape(8, 2), found["pointwise"], rtol=1e-5)
    cell = np.zeros((8, 12), bool)
    cell[:4, 6:] = True
    assert (found["gradient"][:, ~cell] == 0).all()
    seen = (found["near"] != 0).any((0, 3))  # one pixel across the border
    assert seen[4, 5:].all()
    assert not seen[5:].any()
    assert not seen[:, :5].any()


def test_grids_name_their_faults():
    with pytest.raises(ValueError, match="x has 8 images; a grid of 3 x 3 needs 9"):
        metrics.image_grids(X, cells=3)
    with pytest.raises(ValueError, match="4 cells a side do not divide 4 x 6"):
        metrics.difull(net, cells=4)(X)
    with pytest.raises(ValueError, match=r"cell\[1\] is 4; the cells are 0 to 3"):
        metrics.grid_pointing_game(X[:2], jnp.array([0, 4]))
    with pytest.raises(ValueError, match="fraction is 1; expected less than 1"):
        metrics.road(net, fraction=1)


def test_removed_pixels_of_a_ramp_come_back():
    rows, columns = np.mgrid[:9, :9]
    x = np.stack([rows + 2.0 * columns, -columns], -1)[None].astype(np.float32)
    gone = np.zeros((1, 9, 9), bool)
    gone[0, 1:8, 1:8] = np.random.default_rng(0).random((7, 7)) < 0.8
    found = jax.jit(metrics.linear_imputation)(np.where(gone[..., None], 99, x), gone)
    np.testing.assert_allclose(found, x, atol=1e-3)
    everything = jax.jit(metrics.linear_imputation)(x, np.ones((1, 9, 9), bool))
    assert np.isfinite(everything).all()
