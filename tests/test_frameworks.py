"""Modules of NNX, Equinox and Keras: named where they are, and never changed."""

import sys
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxattr
from jaxattr.tracing.taps import split

X = jnp.linspace(-1, 1, 96).reshape(2, 4, 4, 3)
TARGET = jnp.array([0, 1])


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(4, 4, (1, 1), rngs=rngs)

    def __call__(self, x):
        with jax.named_scope("act"):
            return nnx.relu(self.conv(x))


class Flax(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Block(rngs), nnx.Sequential(Block(rngs), Block(rngs))])
        self.fc = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        with jax.named_scope("stem"):
            x = self.stem(x)
        return self.head(self.blocks[1](self.blocks[0](x)))

    def head(self, x):
        return self.fc(x.mean((1, 2)))


class Equinox(eqx.Module):
    stem: eqx.nn.Conv2d
    blocks: list
    fc: eqx.nn.Linear

    def __init__(self, key):
        conv = partial(eqx.nn.Conv2d, key=key)
        act = eqx.nn.Lambda(jax.nn.relu)
        deep = [eqx.nn.Sequential([conv(4, 4, 1), act]), eqx.nn.Sequential([conv(4, 4, 1), act])]
        self.stem = conv(3, 4, 3, padding=1)
        self.blocks = [eqx.nn.Sequential([conv(4, 4, 1), act]), eqx.nn.Sequential(deep)]
        self.fc = eqx.nn.Linear(4, 2, key=key)

    def __call__(self, x):
        return self.fc(self.blocks[1](self.blocks[0](self.stem(x))).mean((1, 2)))


FLAX, EQUINOX = Flax(nnx.Rngs(0)), Equinox(jax.random.key(0))


class Wrapper:
    """A model that an object has and a method of it calls."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x)


class Named(linen.Module):
    def setup(self):
        self.inner, self.head = linen.Dense(4), linen.Dense(2)

    def __call__(self, x):
        return self.head(linen.relu(self.inner(x)).mean((1, 2)))


BLOCKS = ["blocks/0", "blocks/1/layers/0", "blocks/1/layers/1"]
FLAX_LAYERS = ["stem", *[f"{b}/act/conv" for b in BLOCKS], "fc"]
EQUINOX_LAYERS = ["stem", *[f"{b}/layers/0" for b in BLOCKS], "fc"]


def first(x):
    return x.transpose(0, 3, 1, 2)


def flax():
    graph, state = nnx.split(FLAX)
    jitted = jax.jit(lambda x: FLAX(x))
    jitted(X)  # traced before it is read, and without names
    return [
        FLAX,
        FLAX.__call__,
        lambda x: FLAX(x),
        lambda x: FLAX.head(FLAX.blocks[1](FLAX.blocks[0](FLAX.stem(x)))),
        jitted,
        lambda x: nnx.merge(graph, state)(x),
        partial(lambda x, model: model(x), model=FLAX),
        Wrapper(FLAX),
    ]


def equinox():
    arrays, static = eqx.partition(EQUINOX, eqx.is_array)
    return [
        lambda x: jax.vmap(EQUINOX)(first(x)),
        lambda x: jax.vmap(lambda image: EQUINOX(image))(first(x)),
        lambda x: eqx.filter_jit(eqx.filter_vmap(EQUINOX))(first(x)),
        lambda x: jax.vmap(eqx.combine(arrays, static))(first(x)),
    ]


def layers(f):
    return [s.name for s in jaxattr.sites(f, X) if s.kind == "affine" and s.name]


@pytest.mark.parametrize("spell", [flax, equinox])
def test_layers_are_named_by_where_the_modules_are(spell):
    wanted = {flax: FLAX_LAYERS, equinox: EQUINOX_LAYERS}[spell]
    for f in spell():
        assert layers(f) == wanted
        assert __file__ in jaxattr.sites(f, X)[0].source


def test_parts_of_several_models_are_named_after_their_variables():
    stem, block, fc = EQUINOX.stem, EQUINOX.blocks[0], EQUINOX.fc
    f = jax.vmap(lambda image: fc(block(stem(image)).mean((1, 2))))
    assert layers(lambda x: f(first(x))) == ["stem", "block/layers/0", "fc"]


def test_layers_are_found_by_these_names():
    for f in (FLAX, flax()[4]):  # one that was traced before as well
        found = jax.jit(split(f, X, layer="blocks.0").before)(X)
        np.testing.assert_allclose(found, FLAX.blocks[0](FLAX.stem(X)), rtol=1e-5, atol=1e-6)
    found = jax.jit(split(equinox()[0], X, layer="blocks/0").before)(X)
    wanted = jax.vmap(lambda image: EQUINOX.blocks[0](EQUINOX.stem(image)))(first(X))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_layers_are_found_by_the_modules():
    net = Named()
    variables = net.init(jax.random.key(0), X)
    bound = net.bind(variables)
    found = [
        (FLAX, FLAX.blocks[1].layers[0].conv, "blocks/1/layers/0/act/conv"),
        (FLAX, FLAX.blocks[0], "blocks/0"),
        (equinox()[0], EQUINOX.blocks[1].layers[1], "blocks/1/layers/1"),
        (lambda x: net.apply(variables, x), bound.inner, "inner"),
    ]
    for f, module, name in found:
        values = [
            jax.jit(lambda x, f=f, m=m: split(f, x, layer=m).before(x))(X) for m in (module, name)
        ]
        np.testing.assert_array_equal(*values)
    for other in (Block(nnx.Rngs(0)), FLAX, net, 1.5, True):
        with pytest.raises(
            ValueError, match=r"layer is a \w+ that is no part of a model in the func"
        ):
            split(FLAX, X, layer=other)


def test_calls_are_named_while_a_function_is_read_alone():
    classes = (Flax, Block, nnx.Conv, Equinox, eqx.nn.Conv)
    own = {c: vars(c)["__call__"] for c in classes}

    def fails(x):
        assert all(vars(c)["__call__"] is not own[c] for c in classes)
        raise KeyError(str(FLAX(x).shape))

    with pytest.raises(KeyError, match=r"\(2, 2\)"):
        jaxattr.sites(fails, X)
    assert {c: vars(c)["__call__"] for c in classes} == own


class Mixed(nnx.Module):
    """Layers under a scan of NNX, behind what a training mode changes."""

    def __init__(self, rngs: nnx.Rngs):
        make = nnx.vmap(lambda rngs: Block(rngs), in_axes=0, out_axes=0)
        self.stem = nnx.Conv(3, 4, (1, 1), rngs=rngs)
        self.blocks = nnx.split_rngs(splits=2)(make)(rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        scan = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.norm(scan(self.stem(x), self.blocks)).mean((1, 2))


def test_a_scan_of_nnx_is_explained_and_nothing_changed():
    model = Mixed(nnx.Rngs(0))
    before = jax.tree.leaves(nnx.state(model))
    for f in (model, lambda x: model(x)):
        with pytest.raises(ValueError, match=r"changes its own state .*\(model.eval\(\)"):
            jaxattr.saliency(f)(X, TARGET)
    model.eval()
    wanted = nnx.grad(lambda x, model: model(x)[jnp.arange(2), TARGET].sum())(X, nnx.clone(model))
    found = jax.jit(jaxattr.saliency(model))(X, TARGET)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert all(a is b for a, b in zip(before, jax.tree.leaves(nnx.state(model)), strict=True))


@pytest.mark.parametrize(
    "layer", [nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0))]
)
def test_a_training_mode_of_nnx_is_refused(layer):
    with pytest.raises(ValueError, match=r"changes its own state .*\(model.eval\(\)"):
        jaxattr.saliency(lambda x: layer(x).mean((1, 2)))(X[:1], TARGET[:1])


def test_a_model_that_is_passed_to_nnx_jit():
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda layer, x: layer(x.mean((1, 2))))
    with pytest.raises(ValueError, match=r"passes a model to nnx.jit .* call the model itself"):
        jaxattr.saliency(lambda x: call(layer, x))(X, TARGET)


class KerasLike:
    """What is used of Keras: a scope that keeps assignments, and models that have been built."""

    scopes: ClassVar[list] = []

    class StatelessScope:
        def __enter__(self):
            self.state_mapping = {}
            KerasLike.scopes.append(self)
            return self

        def __exit__(self, *_):
            KerasLike.scopes.pop()

    class Layer:
        built = True

        def __call__(self, x, training=False):
            if training:
                KerasLike.scopes[-1].state_mapping["moving_mean"] = x.mean((0, 1, 2))
            return x.mean((1, 2))


def test_keras_is_kept_from_changing_its_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", KerasLike)
    model = KerasLike.Layer()
    np.testing.assert_allclose(jaxattr.saliency(model)(X, TARGET).sum((1, 2, 3)), 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"changes its own state .* training=False"):
        jaxattr.saliency(lambda x: model(x, training=True))(X[:1], TARGET[:1])
    model.built = False
    with pytest.raises(ValueError, match="no weights yet: call it once"):
        jaxattr.saliency(lambda x: model(x))(X, TARGET)


class Output:
    """As a model of Hugging Face returns it, no array and no container of JAX."""

    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    ("f", "instead"),
    [
        (EQUINOX, r"`lambda x: jax.vmap\(f\)\(x.transpose\(0, 3, 1, 2\)\)` instead"),
        (jax.vmap(EQUINOX), r"`lambda x: f\(x.transpose\(0, 3, 1, 2\)\)` instead"),
        (lambda x: EQUINOX(first(x)), r"one image, channels first: .*`lambda x: jax.vmap\(model\)"),
        (lambda x: Output(FLAX(x)), r"`lambda x: f\(x\).logits` instead"),
        (lambda x: {"logits": FLAX(x)}, r"`lambda x: f\(x\)\['logits'\]` instead"),
        (lambda x: (FLAX(x), x), r"`lambda x: f\(x\)\[0\]` instead"),
        (lambda x: FLAX(x)[..., None], r"expected logits of shape \(2, classes\)$"),
    ],
)
def test_what_to_explain_instead_is_said(f, instead):
    with pytest.raises(ValueError, match=instead):
        jaxattr.saliency(f)(X, TARGET)


def test_a_bug_of_the_users_is_theirs():
    with pytest.raises(KeyError, match="mine"):
        jaxattr.saliency(lambda x: {}["mine"])(X, TARGET)
