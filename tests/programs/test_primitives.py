"""The table of primitives, and what users add to it."""

import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

import jaxattr
from jaxattr.programs import primitives
from jaxattr.programs.primitives import Form, Kind, Sign
from jaxattr.rules import gates

OLDEST = (Path(__file__).parent / "data" / "primitives_of_jax_0.7.1.txt").read_text().split()
NEWER = {"stack", "tile", "unstack"} if jax.__version_info__ < (0, 10, 2) else set()


def test_every_name_exists():
    """In the installed JAX, or in the oldest that is supported."""
    installed = {o.name for o in gc.get_objects() if issubclass(type(o), Primitive)}
    assert set(primitives.TABLE) <= installed | set(OLDEST) | NEWER


NUMERIC = {Form.POWER, Form.CURVE, Form.BOUND, Form.CORNER, Form.SCALE, Form.SHIFT}
SIGNED = [n for n, row in primitives.TABLE.items() if row.sign and row.form in NUMERIC]


@pytest.mark.parametrize("name", [n for n in SIGNED if hasattr(jax.lax, n)])
def test_signs(name):
    """What the table says of signs holds at random operands of either sign."""
    row = primitives.TABLE[name]
    function = getattr(jax.lax, name)
    a, b = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    if row.sign is Sign.ALL:
        a, b = abs(a), abs(b)
    elif row.sign is Sign.ANY:
        a = abs(a)
    call = {
        "integer_pow": lambda: jax.lax.integer_pow(a, 3),
        "convert_element_type": lambda: jax.lax.convert_element_type(a, "float16"),
        "reduce_precision": lambda: jax.lax.reduce_precision(a, 5, 10),
        "pow": lambda: jax.lax.pow(a, b),
        "acosh": lambda: jax.lax.acosh(1 + abs(a)),
    }.get(name)
    if call is None:
        binary = row.form in (Form.BOUND, Form.SCALE) or name == "add"
        call = lambda: function(a, b) if binary else function(a)
    assert (np.asarray(call()) >= 0).all()


@pytest.fixture
def softsign():
    """A function with a derivative of its own, inside which nobody should look."""

    @jax.custom_vjp
    def softsign(x):
        return jnp.cumprod(x[..., None], -1)[..., 0] / (1 + abs(x))  # no reader follows this

    softsign.defvjp(lambda x: (softsign(x), x), lambda x, g: (g / (1 + abs(x)) ** 2,))
    yield softsign
    primitives._REGISTERED.pop("softsign", None)


def test_a_registered_activation_takes_rules(softsign):
    x = jnp.array([-2.0, 1.0])
    f = lambda x: (softsign(x) * jnp.array([1.0, -1.0])).sum()
    rules = {"activation": gates.guided}
    with pytest.raises((jaxattr.UnsupportedOperation, ValueError)):
        jax.grad(jaxattr.with_rules(f, rules, needs=["activation"]))(x)
    primitives.register("softsign", "activation")
    assert [s.kind for s in jaxattr.sites(f, x)] == [Kind.ACTIVATION, Kind.AFFINE, Kind.LINEAR]
    guided = jax.grad(jaxattr.with_rules(f, rules))(x)
    np.testing.assert_allclose(guided, [1 / 9, 0], rtol=1e-6)


def test_register_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="'activations'; expected one of activation, linear"):
        primitives.register("mine", "activations")
    with pytest.raises(ValueError, match="'dot_general' is a primitive of JAX"):
        primitives.register("dot_general", "linear")


@pytest.mark.parametrize("kind", ["activations", "structure", "control", "inactive", "relu", ""])
def test_a_misspelt_kind_is_an_error(kind):
    """No rule is ignored without a word."""
    with pytest.raises(ValueError, match=f"there is no rule for {kind!r}: rules are for the kinds"):
        jaxattr.with_rules(jax.nn.relu, {kind: gates.guided})
    with pytest.raises(ValueError, match="there is no rule for"):
        jaxattr.with_rules(jax.nn.relu, {}, needs=[kind])
