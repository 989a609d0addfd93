"""Python called from compiled programs."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxattr.loops import host

ON_ONE_CORE = """
import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np

from jaxattr.loops import host


@jax.jit
def double(x):
    total = jax.lax.fori_loop(0, 20, lambda i, m: jnp.sin(m @ m), jnp.ones((300, 300))).sum()
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return host.call(lambda a: 2 * a, shape, x + 0 * total)


# that of NumPy is copied while the program is under way
x = np.arange(1_000_000, dtype=np.float32)
for _ in range(4):
    np.testing.assert_array_equal(double(x), 2 * x)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot be kept to one core here")
@pytest.mark.slow
def test_a_program_on_one_core_does_not_wait_for_itself():
    subprocess.run([sys.executable, "-c", ON_ONE_CORE], timeout=120, check=True)


@pytest.mark.parametrize("number", [0, 1, host.AT_ONCE // 4, host.AT_ONCE // 4 + 1, 50_001])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_arrays_of_any_size_arrive(number, wrap):
    x, y = np.arange(number, dtype=np.float32), np.arange(number) % 2 == 0
    shape = jax.ShapeDtypeStruct((number,), jnp.float32)
    found = wrap(lambda x, y: host.call(lambda a, b: np.where(b, a, -a), shape, x, y))(x, y)
    np.testing.assert_array_equal(found, np.where(y, x, -x))


def test_keeps_shapes_and_goes_one_by_one_under_vmap():
    seen = []

    def turned(a):
        seen.append(a.shape)
        a[0] = 0
        return np.ascontiguousarray(a.T)

    x = jnp.arange(3 * 200 * 150, dtype=jnp.float32).reshape(3, 200, 150)
    shape = jax.ShapeDtypeStruct((150, 200), jnp.float32)
    found = jax.jit(jax.vmap(lambda a: host.call(turned, shape, a)))(x)
    np.testing.assert_array_equal(found, x.at[:, 0].set(0).transpose(0, 2, 1))
    assert seen == [(200, 150)] * 3
