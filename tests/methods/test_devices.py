"""A batch that is split over devices gets the maps of the whole, by `jit` and by `shard_map`.

So do metrics; and of eight devices each does an eighth of the work.
"""

import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from speed import ALIKE

from jaxattr import UnsupportedOperation, freeze
from jaxattr.catalogue import METHODS

NHWC = ("NHWC", "HWIO", "NHWC")
SMALL = {  # options that make a method quick
    "steps": 2,
    "samples": 3,
    "scales": (1, 1.5),
    "window": 4,
    "chunk": 2,
    "areas": (0.5,),
    "spacing": 2,
    "sigma": 2.0,
    "max_sigma": 2.0,
}
SCRIPT = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, jax.numpy as jnp, numpy as np
from jax import lax, nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxattr import batched, metrics, saliency
from jaxattr.catalogue import METHODS

jax.config.update("jax_disable_most_optimizations", True)
# Two programs that wait for the same devices of a machine of two cores may wait for each other.
jax.config.update("jax_cpu_enable_async_dispatch", False)
keys = jax.random.split(jax.random.key(0), 4)
kernels = [jax.random.normal(k, s) / 4 for k, s in zip(keys, [(3, 3, 3, 8), (3, 3, 8, 8)])]
head = jax.random.normal(keys[2], (8, 5))

def f(x):
    for kernel in kernels:
        x = nn.relu(lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean((1, 2)) @ head

def explain(method):
    options = {k: v for k, v in few.items() if k in method.options}
    inner = saliency(f) if method.facts.wraps else f
    return lambda x, t: method.function(inner, **options)(x, t, key=jax.random.key(1))

key, a = jax.random.key(2), lambda x: x.sum(-1)
known = {name: explain(method) for name, method in METHODS.items()}
known |= {
    "batched": batched(saliency(f), 32),
    "completeness_error": lambda x, t: metrics.completeness_error(f)(x, t, x),
    "insertion": lambda x, t: metrics.insertion(f, chunk=2)(x, t, a(x)),
    "deletion": lambda x, t: metrics.deletion(f, chunk=2)(x, t, a(x)),
    "morf": lambda x, t: metrics.morf(f, chunk=2)(x, t, a(x)),
    "lerf": lambda x, t: metrics.lerf(f, chunk=2)(x, t, a(x)),
    "infidelity": lambda x, t: metrics.infidelity(f, chunk=2)(x, t, x, key=key),
    "max_sensitivity": lambda x, t: metrics.max_sensitivity(saliency(f), chunk=2)(x, t, key=key),
    "rank_correlation": lambda x, t: metrics.rank_correlation(a(x), a(abs(x))),
    "ssim": lambda x, t: metrics.ssim(a(x), a(abs(x))),
    "localization_iou": lambda x, t: metrics.localization_iou(a(x), a(x) > 0),
    "segmentation_iou": lambda x, t: metrics.segmentation_iou(a(x), a(x) > 0),
    "pointing_game": lambda x, t: metrics.pointing_game(a(x), a(x) > 1),
    "energy_pointing_game": lambda x, t: metrics.energy_pointing_game(a(x), a(x) > 1),
    "average_sensitivity": lambda x, t: metrics.average_sensitivity(
        saliency(f), chunk=2
    )(x, t, key=key),
    "continuity": lambda x, t: metrics.continuity(saliency(f), steps=4, chunk=2)(x, t),
}
x, target = jax.random.normal(keys[3], (64, 8, 8, 3)), jnp.arange(64) % 5
batch = PartitionSpec("batch")
mesh = Mesh(np.array(jax.devices()), ("batch",))
parts = [jax.device_put(a, NamedSharding(mesh, batch)) for a in (x, target)]
for name in sys.argv[1:] or [name for name in known if name not in METHODS]:
    run = known[name]
    one, split = (jax.jit(run).lower(*args).compile() for args in ((x, target), parts))
    share = one.cost_analysis()["flops"] / split.cost_analysis()["flops"]
    assert share > 7.5, f"{name}: as much work as of 1 / {share} of the batch"
    assert "all-gather" not in split.as_text(), name
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=batch, out_specs=batch))
    whole = one(x, target)
    for way, found in {"jit": split(*parts), "shard_map": mapped(*parts)}.items():
        for old, new in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
            old, new = np.asarray(old, float), np.asarray(new, float)
            error = np.nanmax(abs(new - old)) / np.nanmax(abs(old))
            assert error < 1e-4, f"{name} by {way}: {error}"
            np.testing.assert_array_equal(np.isnan(old), np.isnan(new))
    assert all(leaf.sharding.spec[0] == "batch" for leaf in jax.tree.leaves(split(*parts))), name
"""
FEW = ["saliency", "integrated_gradients", "lrp", "rsp", "grad_cam", "tr_gbp", "dmbp", "lpr"]
FEW += ["extremal_perturbation"]
REST = [name for name in METHODS if name not in {*FEW, *ALIKE, "xrai"}]
"""XRAI's segments are the host's."""


@pytest.mark.slow
@pytest.mark.parametrize("names", [FEW, REST, []], ids=["few", "rest", "metrics"])
def test_a_batch_over_eight_devices(names):
    script = f"few = {SMALL}\n{SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def explained(name):
    """Return a method of two convolutions."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 3)), "float32")
    conv = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    layer = lambda x: jnp.maximum(conv(x, w, dimension_numbers=NHWC), 0)
    f = lambda x: layer(layer(x)).mean((1, 2))
    options = {k: v for k, v in SMALL.items() if k in METHODS[name].options}
    return lambda x, t: METHODS[name].function(f, **options)(x, t, key=jax.random.key(1))


@pytest.mark.parametrize("name", FEW)
def test_a_batch_over_a_mesh(name):
    """Under `shard_map` what is carried and chosen varies over the mesh as the batch does."""
    explain, mesh, batch = explained(name), Mesh(np.array(jax.devices()[:1]), "batch"), P("batch")
    split = jax.shard_map(explain, mesh=mesh, in_specs=batch, out_specs=batch)
    shape = jax.eval_shape(split, jnp.ones((2, 8, 8, 3)), jnp.array([0, 1])).shape
    assert shape[:3] == (2, 8, 8)


@pytest.mark.parametrize("name", ["guided_backprop", "lrp", "excitation_backprop"])
def test_a_shard_map_inside_the_model(name):
    """Rules reach inside."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    w, head = jax.random.normal(jax.random.key(1), (2, 3, 3))
    layer = lambda x, w: jax.nn.relu(x @ w + 0.1)
    mesh, batch = Mesh(np.array(jax.devices()[:1]), "batch"), P("batch")
    split = jax.shard_map(layer, mesh=mesh, in_specs=(batch, P()), out_specs=batch)
    maps = [
        jax.jit(METHODS[name].function(lambda x, run=run: run(x, w).mean((1, 2)) @ head))(
            x, jnp.array([0, 1])
        )
        for run in (layer, split)
    ]
    assert np.abs(maps[0]).max() > 0
    np.testing.assert_allclose(*maps, rtol=1e-5, atol=1e-7)


def test_a_shard_map_is_no_place_to_freeze():
    mesh, batch = Mesh(np.array(jax.devices()[:1]), "batch"), P("batch")
    split = jax.shard_map(jax.nn.relu, mesh=mesh, in_specs=batch, out_specs=batch)
    with pytest.raises(UnsupportedOperation, match="stands in a shard_map"):
        freeze(split, jnp.ones(2))


@pytest.mark.skipif(not hasattr(jax.sharding, "use_abstract_mesh"), reason="this JAX has no such")
@pytest.mark.parametrize("name", FEW)
def test_the_samples_of_an_image_stay_together(name):
    """Types of an explicit mesh say so: no axis is put before one that is split over devices."""
    mesh = AbstractMesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    split = NamedSharding(mesh, P("batch"))
    kinds = [((4, 8, 8, 3), "float32"), ((4,), "int32")]
    x, target = (jax.ShapeDtypeStruct(*kind, sharding=split) for kind in kinds)
    explain = explained(name)
    with jax.sharding.use_abstract_mesh(mesh):
        maps = jax.eval_shape(explain, x, target)
    assert maps.sharding.spec[0] == "batch"


EXPLICIT = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp
from jax import lax, nn
from jax.sharding import AxisType, PartitionSpec
from jaxattr import saliency
from jaxattr.catalogue import METHODS

jax.config.update("jax_disable_most_optimizations", True)
x, target = jax.random.normal(jax.random.key(0), (8, 8, 8, 3)), jnp.arange(8) % 5
shapes = [(3, 3, 3, 4), (3, 3, 4, 4), (4, 5)]
weights = [jax.random.normal(jax.random.key(n), s) / 4 for n, s in enumerate(shapes)]

def explained(name, x, target, *weights):
    *kernels, head = weights
    def f(x):
        for kernel in kernels:
            x = nn.relu(0.1 + lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ))
        return x.reshape(len(x), -1, 4).mean(1) @ head
    options = {k: v for k, v in few.items() if k in METHODS[name].options}
    inner = saliency(f) if METHODS[name].facts.wraps else f
    explain = lambda x, t: METHODS[name].function(inner, **options)(x, t, key=jax.random.key(1))
    return jax.jit(explain)(x, target)

wholes = {name: explained(name, x, target, *weights) for name in sys.argv[1:]}
jax.set_mesh(jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,)))
split = [jax.device_put(a, PartitionSpec("batch")) for a in (x, target)]
split += [jax.device_put(w, PartitionSpec()) for w in weights]
for name, whole in wholes.items():
    maps = explained(name, *split)
    error = abs(jax.device_get(maps) - jax.device_get(whole)).max() / abs(whole).max()
    assert error < 1e-4, f"{name}: {error}"
    assert maps.sharding.spec[0] == "batch", f"{name} is {maps.sharding}"
"""


@pytest.mark.slow
def test_an_explicit_mesh():
    names = [*FEW, *REST, *(["xrai"] if find_spec("skimage") else [])]
    script = f"few = {SMALL}\n{EXPLICIT}"
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
