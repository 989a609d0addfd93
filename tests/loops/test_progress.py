"""How far a loop has come is told up to a hundred times, and never more than there is."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jaxattr
from jaxattr.loops.moments import moments
from jaxattr.loops.optimization import minimize
from jaxattr.loops.progress import report
from jaxattr.loops.variants import evaluate_variants

X = jnp.ones((7, 2, 2, 1))


def linear(x):
    return x.sum((1, 2))


def loop(progress, *, steps, each=1):
    """Run a loop of so many steps, `each` of them an iteration."""

    def step(_, i):
        report(progress, i, steps, each=each)
        return None, None

    return lax.scan(step, None, jnp.arange(-(-steps // each)))


@pytest.mark.parametrize(("steps", "each"), [(1, 1), (5, 2), (100, 1), (101, 1), (1000, 3)])
def test_told_at_most_a_hundred_times(steps, each):
    told = []
    jax.block_until_ready(jax.jit(partial(loop, told.append, steps=steps, each=each))())
    jax.effects_barrier()
    assert 1 <= len(told) <= 100
    assert all(isinstance(n, int) for n in told)
    assert sorted(told) == sorted(set(told))
    assert max(told) <= steps
    if steps <= 100 * each:
        assert sorted(told) == [min((i + 1) * each, steps) for i in range(-(-steps // each))]


def test_no_progress_costs_nothing():
    program = jax.make_jaxpr(partial(loop, None, steps=5))()
    assert "cond" not in str(program)
    assert "callback" not in str(program)


@pytest.mark.parametrize(
    ("run", "steps"),
    {
        "moments": (
            lambda p: moments(jnp.cos, jnp.arange(5.0), jnp.ones(5), chunk=2, progress=p),
            [2, 4, 5],
        ),
        "evaluate_variants": (
            lambda p: evaluate_variants(
                linear, lambda s: s * X, jnp.arange(5.0), lambda y, n: y[:, 0], chunk=2, progress=p
            ),
            [2, 4, 5],
        ),
        "minimize": (
            lambda p: minimize(lambda a, i: a**2, jnp.ones(3), optax.sgd(0.1), 3, progress=p),
            [1, 2, 3],
        ),
        "batched": (
            lambda p: jaxattr.batched(jaxattr.saliency(linear), 3, progress=p)(X, np.zeros(7, int)),
            [3, 6, 7],
        ),
    }.values(),
    ids=["moments", "evaluate_variants", "minimize", "batched"],
)
def test_every_loop_tells(run, steps):
    told = []
    jax.block_until_ready(run(told.append))
    jax.effects_barrier()
    assert sorted(told) == steps
