"""Laws of every method on the architectures that people use, and the page of what is refused."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import relative_error
from speed import mostly_slow
from zoo.architectures import ARCHITECTURES, SAME, build
from zoo.survey import (
    DISTINCT,
    PAGE,
    READERS,
    attended,
    classes,
    explained,
    page,
    refused,
    row,
    table,
)

import jaxattr
from jaxattr.catalogue import ATTENDING, METHODS
from jaxattr.rules.composites import cp_lrp

SHARE = 4  # methods for one architecture, the next ones for the next: more methods cost no more
QUICK = [
    ("AlexNet", "rise"),
    ("squeeze and excitation", "deconvnet"),
    ("ViT, class token", "fullgrad"),
    ("maxout", "rsp"),
    ("remat", "dmbp"),
]


def taken(name):
    """Return the methods that take an architecture, as the page says."""
    return [method for method in DISTINCT if method not in refused(name)]


TURNS = len(DISTINCT) // SHARE
TURN = {name: list(DISTINCT)[i % TURNS :: TURNS] for i, name in enumerate(ARCHITECTURES)}
PAIRS = [(name, method) for name in TURN for method in TURN[name] if method in taken(name)]
PAIRS += [(name, m) for m in ATTENDING for name in ("ViT, class token", "ViT, mean")]
PAIRS += [pair for pair in QUICK if pair not in PAIRS]


@pytest.mark.parametrize(("name", "method"), mostly_slow(PAIRS, QUICK[1:3]))
def test_a_batch_has_the_maps_of_its_images(name, method):
    """By `vmap`, which sees one image, and beside copies of itself; one program has all."""
    explain = explained(build(name), method)
    one = lambda x, target: explain(x[None], target[None])[0]
    both = jax.jit(lambda x, target: (explain(x, target), jax.vmap(one)(x, target)))
    x, target = classes(name)
    maps, alone = both(x, target)
    assert maps.shape == (*x.shape[:3], 1 if (METHODS | ATTENDING)[method].facts.spatial else 2)
    assert np.isfinite(maps).all()
    assert np.abs(maps).max() > 0
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4 * np.abs(maps).max())
    close(alone, maps)
    for i in range(2):
        copies = np.full(3, i)
        close(both(x[copies], target[copies])[0], maps[copies])


@pytest.mark.parametrize(("name", "method"), mostly_slow(QUICK, QUICK[1:2]))
def test_eager_is_jit(name, method):
    explain, args = explained(build(name), method), classes(name)
    assert relative_error(explain(*args), jax.jit(explain)(*args)) < 1e-4


SUMS = {
    "deeplift": lambda f, y, y0: (jaxattr.deeplift(f), y - y0),
    "excitation_backprop": lambda f, y, y0: (jaxattr.excitation_backprop(f), jnp.ones_like(y)),
    "fullgrad": lambda f, y, y0: (terms(jaxattr.fullgrad_details(f)), y),
    "lrp": lambda f, y, y0: (jaxattr.lrp(f, conserve=True), y),
    "lrp by cp_lrp": lambda f, y, y0: (jaxattr.lrp(f, composite=cp_lrp(), conserve=True), y),
    "rap": lambda f, y, y0: (jaxattr.rap(f), y),
}
"""What maps sum to, of the logits at the images and at zero."""
EXCITED = ("AlexNet", "VGG", "Inception", "maxout", "one logit", "maps of one position")
UNPROMISED = {
    "excitation_backprop": set(ARCHITECTURES) - set(EXCITED),  # it sums to 1 on networks of ReLUs
    "lrp": {"ViT, class token", "ViT, mean", "Swin"},  # the softmax of AttnLRP keeps a part
    "lrp by cp_lrp": set(ARCHITECTURES)
    - {
        "ViT, mean",
        "Swin",
        "pre-activation ResNet",
        "DenseNet",
    },  # attention, scales without layers
    "rap": {"ViT, class token"},  # the token's own start keeps a part
}
"""Where a sum is not promised, and why."""


def terms(details):
    """Return an attribution of all terms of FullGrad, side by side."""

    def attribute(x, target):
        found = details(x, target)
        parts = [found.input, *found.biases.values()]
        return jnp.concatenate([a.reshape(len(x), -1) for a in parts], 1)

    return attribute


@pytest.mark.parametrize("name", mostly_slow(ARCHITECTURES, ["mirrored ReLU"]))
def test_maps_sum_to_what_is_promised(name):
    f = build(name)
    left_out = {method for method, names in UNPROMISED.items() if name in names}
    promised = [m for m in SUMS if m.split()[0] in taken(name) and m not in left_out]

    @jax.jit
    def sums(x, target):
        at, zero = (
            jnp.take_along_axis(f(x), target[:, None], 1)[:, 0] for x in (x, jnp.zeros_like(x))
        )
        found = {}
        for method in promised:
            attribute, expected = SUMS[method](f, at, zero)
            a = attribute(x, target)
            found[method] = a.reshape(len(x), -1).sum(1), expected, jnp.abs(a).max()
        return found

    for method, (total, expected, scale) in jax.device_get(sums(*classes(name))).items():
        np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-4 * scale, err_msg=method)


SPELLED = ("guided_backprop", "lrp", "deeplift", "fullgrad", "grad_cam", "dmbp")


@pytest.mark.parametrize("name", mostly_slow(SAME, ["scan"]))
def test_every_spelling_of_a_network(name):
    x, target = classes(name)
    methods = [method for method in SPELLED if method in taken(name)]
    pair = [build(name), build(SAME[name])]
    maps = jax.jit(
        lambda x, target: {m: [explained(f, m)(x, target) for f in pair] for m in methods}
    )
    for method, (one, other) in maps(x, target).items():
        assert relative_error(one, other) < 1e-4, method


@pytest.mark.parametrize("name", mostly_slow(ARCHITECTURES, ["gated linear unit"]))
def test_the_page_says_what_is_refused(name):
    assert table(0)[name] == row(name), (
        "to write it anew: PYTHONPATH=tests python tests/zoo/survey.py"
    )


@pytest.mark.parametrize("method", mostly_slow(ATTENDING, []))
def test_the_page_says_what_methods_made_for_attention_take(method):
    assert table(1)[method] == attended(method)


def test_the_page_has_every_architecture():
    assert list(table(0)) == list(ARCHITECTURES)
    assert list(table(1)) == list(ATTENDING)
    assert set().union(*map(refused, ARCHITECTURES)) <= set(READERS)
    head = PAGE.read_text().partition("\n|---")[0]
    assert head == page([], []).partition("\n|---")[0]


SPLIT = [
    ("ResNet", "lrp"),
    ("DenseNet", "deeplift"),
    ("squeeze and excitation", "guided_backprop"),
    ("ViT, mean", "saliency"),
    ("MobileNetV2", "rsp"),
    ("Inception", "dmbp"),
    ("scan", "fullgrad"),
    ("maxout", "occlusion"),
]
SCRIPT = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from zoo.architectures import build
from zoo.survey import classes, explained

jax.config.update("jax_disable_most_optimizations", True)
mesh, batch = Mesh(np.array(jax.devices()), "batch"), PartitionSpec("batch")
assert mesh.size == 8
for name, method in PAIRS:
    explain, args = explained(build(name), method), classes(name, 8)
    whole = jax.jit(explain)(*args)
    parts = [jax.device_put(a, NamedSharding(mesh, batch)) for a in args]
    split = jax.shard_map(explain, mesh=mesh, in_specs=batch, out_specs=batch)
    for way, f in {"jit": explain, "shard_map": split}.items():
        error = abs(jax.jit(f)(*parts) - whole).max() / abs(whole).max()
        assert error < 1e-4, f"{method} of {name} by {way}: {error}"
"""


@pytest.mark.slow
def test_a_batch_over_eight_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    script = f"PAIRS = {SPLIT}\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
