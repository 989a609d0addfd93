"""A batch that is split over devices gets the maps of the whole, by `jit` and by `shard_map`."""

import subprocess
import sys

import pytest

from jaxattr.catalogue import METHODS

SCRIPT = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp, numpy as np
from jax import lax, nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxattr import saliency
from jaxattr.catalogue import METHODS

jax.config.update("jax_disable_most_optimizations", True)
keys = jax.random.split(jax.random.key(0), 4)
kernels = [jax.random.normal(k, s) / 4 for k, s in zip(keys, [(3, 3, 3, 8), (3, 3, 8, 8)])]
head = jax.random.normal(keys[2], (8, 5))
few = {
    "steps": 2, "samples": 3, "scales": (1, 1.5), "window": 4, "areas": (0.5,), "spacing": 2,
    "sigma": 2.0, "max_sigma": 2.0,
}

def f(x):
    for kernel in kernels:
        x = nn.relu(lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean((1, 2)) @ head

x, target = jax.random.normal(keys[3], (8, 8, 8, 3)), jnp.arange(8) % 5
batch = PartitionSpec("batch")
mesh = Mesh(np.array(jax.devices()), ("batch",))
parts = [jax.device_put(a, NamedSharding(mesh, batch)) for a in (x, target)]
for name in sys.argv[1:]:
    method = METHODS[name]
    options = {k: v for k, v in few.items() if k in method.options}
    inner = saliency(f) if method.facts.wraps else f
    explain = lambda x, t: method.function(inner, **options)(x, t, key=jax.random.key(1))
    whole = jax.jit(explain)(x, target)
    split = jax.shard_map(explain, mesh=mesh, in_specs=batch, out_specs=batch)
    for way, maps in {"jit": jax.jit(explain)(*parts), "shard_map": jax.jit(split)(*parts)}.items():
        error = abs(maps - whole).max() / abs(whole).max()
        assert error < 1e-4, f"{name} by {way}: {error}"
"""
QUICK = ["saliency", "integrated_gradients", "lrp", "rsp", "grad_cam", "tr_gbp", "dmbp", "lpr"]
QUICK += ["extremal_perturbation"]
REST = [name for name in METHODS if name not in {*QUICK, "xrai"}]  # XRAI's segments are the host's


@pytest.mark.parametrize("names", [QUICK, pytest.param(REST, marks=pytest.mark.slow)], ids=len)
def test_a_batch_over_four_devices(names):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
