"""Every way of writing a network computes torch's logits."""

from functools import partial

import jax
import pytest
from frameworks import FRAMEWORKS
from nets import NETS, RELU6S, RELUS, load, plain
from peers import peer, relative_error
from speed import mostly_slow

WRITTEN = (
    [(name, build) for name in NETS for build in FRAMEWORKS.values()]
    + [("vgg", partial(plain, relu=relu)) for relu in RELUS.values()]
    + [("lite", partial(plain, relu6=relu6)) for relu6 in RELU6S.values()]
)
LABELS = (
    [f"{name}-{framework}" for name in NETS for framework in FRAMEWORKS]
    + [f"vgg-{spelling}" for spelling in RELUS]
    + [f"lite-{spelling}" for spelling in RELU6S]
)


@pytest.mark.parametrize(("name", "build"), mostly_slow(WRITTEN, WRITTEN[::4]), ids=LABELS)
def test_every_spelling(name, build):
    with jax.enable_x64(True):
        net, params, x, _ = load(name, "float64")
        logits = jax.jit(build(net, params))(x)
    assert logits.dtype == "float64"
    assert relative_error(logits, peer(name)["logits"]) < 1e-13


@pytest.mark.parametrize("name", NETS)
def test_float32(name):
    net, params, x, _ = load(name)
    logits = jax.jit(plain(net, params))(x)
    assert logits.dtype == "float32"
    assert relative_error(logits, peer(name)["logits"]) < 3e-6
