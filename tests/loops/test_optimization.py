"""Parameters fitted for every image: optax's steps, losses recorded, images apart."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from precision import enable_x64

from jaxattr.loops.optimization import minimize, projected


def terms(parameters, step):
    """Two terms for each of three images, one of which changes from step to step."""
    a, b = parameters
    return {"bowl": ((a - jnp.arange(1.0, 4)[:, None]) ** 2).sum(1), "moving": (step + 1) * b**2}


def start():
    return jnp.ones((3, 2)) * 0.3, jnp.arange(3.0)


def test_follows_optax_by_hand():
    with enable_x64(True):
        found, losses = jax.jit(lambda s: minimize(terms, s, optax.adam(0.1), 4))(start())
        parameters, optimizer = start(), optax.adam(0.1)
        memory, history = optimizer.init(parameters), []
        for i in range(4):
            history.append(terms(parameters, i))
            total = lambda p, i=i: sum(loss.sum() for loss in terms(p, i).values())
            update, memory = optimizer.update(jax.grad(total)(parameters), memory, parameters)
            parameters = optax.apply_updates(parameters, update)
        expected = {k: np.stack([h[k] for h in history], -1) for k in history[0]}
        chex.assert_trees_all_close(found, parameters, rtol=1e-10)
        chex.assert_trees_all_close(losses, expected, rtol=1e-10)
        assert losses["bowl"].shape == (3, 4)


def test_each_image_as_if_alone():
    whole, losses = minimize(terms, start(), optax.adam(0.1), 5)

    def alone(i):
        one = lambda p, step: jax.tree.map(lambda a: a[i], terms(p, step))
        return minimize(one, start(), optax.adam(0.1), 5)

    for i in range(3):
        parameters, own = alone(i)
        chex.assert_trees_all_close([p[i] for p in parameters], [p[i] for p in whole], rtol=1e-5)
        chex.assert_trees_all_close(own, jax.tree.map(lambda a, i=i: a[i], losses), rtol=1e-5)


def test_bounds_are_kept_at_every_step():
    uphill = lambda p, step: -((p - 0.5) ** 2)
    begin = jnp.array([0.6, 0.4, 0.5])
    found, _ = minimize(uphill, begin, projected(optax.sgd(1.0), 0, 1), 10)
    np.testing.assert_allclose(found, [1, 0, 0.5])
    free, _ = minimize(uphill, begin, optax.sgd(1.0), 10)
    assert free[0] > 1


def test_there_is_a_step():
    with pytest.raises(ValueError, match="steps is 0; expected at least 1"):
        minimize(terms, start(), optax.adam(0.1), 0)
