"""Our methods against the arrays that other libraries wrote (`reference/make_peers.py`)."""

from collections.abc import Callable
from functools import cache
from itertools import cycle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import NETS, load, plain
from peers import peer, relative_error
from speed import mostly_slow

import jaxattr
from jaxattr.image import maps
from jaxattr.loops import quadrature as quadratures
from jaxattr.types import Attribution, Fun

TOLERANCE = {"float32": 1e-5, "float64": 1e-9}
STEPS, NOISE = 20, 0.05
QUADRATURES = {
    "left": quadratures.left_riemann,
    "right": quadratures.right_riemann,
    "middle": quadratures.midpoint,
    "gauss_legendre": quadratures.gauss_legendre,
    # its weights sum to (n - 1)/n
    "captum_trapezoid": lambda n: quadratures.trapezoid(n)._replace(
        weights=quadratures.trapezoid(n).weights * (n - 1) / n
    ),
}
NOISY = {  # by the names of the arrays
    "smooth": jaxattr.smoothgrad,
    "smooth_squared": jaxattr.smoothgrad_squared,
    "variance": jaxattr.vargrad,
}
GIVEN = ("net.", "x", "target", "baseline", "draws")
ELSEWHERE = ("logits", "grad_cam_raw.", *NOISY)
"""Arrays that no attribution of `ours` answers to."""
ARRAYS = {
    name: [array for array in peer(name) if not array.startswith((*GIVEN, *ELSEWHERE))]
    for name in NETS
}


def ours(f: Fun, array: str, baseline: jax.Array) -> Attribution | Callable[..., jax.Array]:
    """Return the attribution that an array of this name is held against."""
    match array.split("."):
        case ["saliency"]:
            return jaxattr.saliency(f)
        case ["saliency", "abs"]:
            return lambda x, target: maps.abs(jaxattr.saliency(f)(x, target))
        case ["input_x_gradient"]:
            return jaxattr.input_x_gradient(f)
        case ["integrated_gradients", rule, start]:
            start = {"zero": 0.0, "random": baseline}[start]
            return jaxattr.integrated_gradients(
                f, steps=STEPS, baseline=start, quadrature=QUADRATURES[rule]
            )
        case ["guided_backprop"]:
            return jaxattr.guided_backprop(f)
        case ["deconvnet"]:
            return jaxattr.deconvnet(f)
        case ["grad_cam", *layer]:
            return jaxattr.grad_cam(f, layer="/".join(layer))
        case ["occlusion", window, stride]:
            return jaxattr.occlusion(f, window=int(window), stride=int(stride))
        case ["guided_grad_cam", *layer]:
            return jaxattr.guided_grad_cam(f, layer="/".join(layer))
        case _:
            raise ValueError(f"no method of ours answers to the array {array!r}")


@cache
def attributions(name: str, precision: str) -> dict[str, np.ndarray]:
    """Compute all of `ours` for one network, in one program."""
    with jax.enable_x64(precision == "float64"):
        net, params, x, target = load(name, precision)
        baseline = jnp.asarray(peer(name)["baseline"], precision)

        @jax.jit
        def explain(params, x, target):
            f = plain(net, params)
            return {array: ours(f, array, baseline)(x, target) for array in ARRAYS[name]}

        return jax.device_get(explain(params, x, target))


@pytest.mark.parametrize("precision", mostly_slow(TOLERANCE, ["float32"]))
@pytest.mark.parametrize(
    ("name", "array"),
    mostly_slow(
        [(n, array) for n in NETS for array in ARRAYS[n]],
        [("lite", a) for a in ARRAYS["lite"][::3]],
    ),
)
def test_captum(name, array, precision):
    a, theirs = attributions(name, precision)[array], peer(name)[array]
    assert a.dtype == precision
    # Captum's occlusion is float32 whatever its input
    tolerance = max(TOLERANCE[precision], TOLERANCE[str(theirs.dtype)])
    assert relative_error(a, theirs) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("method", NOISY)
def test_captum_with_given_noise(method, monkeypatch):
    theirs = peer("vgg")
    draws = cycle(theirs["draws"])
    monkeypatch.setattr(jax.random, "normal", lambda _, __, dtype: jnp.asarray(next(draws), dtype))
    # loops run in Python then, one draw a turn; `cycle` forgives a turn to learn the shape
    with jax.enable_x64(True), jax.disable_jit():
        net, params, x, target = load("vgg", "float64")
        saliency = jaxattr.saliency(plain(net, params))
        attribute = NOISY[method](saliency, samples=len(theirs["draws"]), noise=NOISE)
        a = attribute(x, target, key=jax.random.key(0))
    assert relative_error(a, theirs[method]) < TOLERANCE["float64"]


@pytest.mark.parametrize("name", NETS)
def test_enlarging_is_torchs(name):
    theirs = peer(name)
    for array, raw in theirs.items():
        if array.startswith("grad_cam_raw."):
            large = theirs[array.replace("_raw", "")]
            with jax.enable_x64(True):
                a = maps.resize(jnp.asarray(raw), large.shape[1:3])
            assert relative_error(a, large) < TOLERANCE["float64"]
