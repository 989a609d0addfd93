"""Whatever is asked for, an answer is maps or one sentence, and no photograph is touched."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from jaxattr import models
from jaxattr.cli.main import main
from jaxattr.models import published
from weights_conversion import open_checkpoint

pytestmark = pytest.mark.usefixtures("no_programs_kept")

WORDS = (
    "",
    " ",
    "-",
    "--",
    "--5",
    "-0",
    "00003",
    "0x10",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "3.5",
    "1e400",
    "-1e-9",
    "nan",
    "-inf",
    "9" * 40,
    "9" * 5000,
    "a" * 5000,
    "top",
    " cat",
    "cat, dog",
    "saliency",
    " saliency , deconvnet,",
    "saliency:",
    ":saliency",
    "smoothgrad:smoothgrad:dmbp",
    "smoothgrad : saliency",
    "$\\frac{",
    "%s %d {0}",
    "*.png",
    "[",
    "**/*",
    "one.png",
    "./one.png",
    "in",
    "in/nothing",
    "notes.txt",
    "notes.txt/one.png",
    "cut.png",
    "maps",
    "skimage:",
    "skimage:../one",
    "rgb(1,2",
    "#12345",
    "white",
    "two\nlines",
    "tab\t",
    "nul\0",
    "\udcff",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp",
    "/dev/null",
)
OPTIONS = [
    *("--model", "--weights", "--checkpoint", "--classes", "--method", "--target", "--out"),
    *("--steps", "--samples", "--noise", "--layer", "--seed", "--background", "--batch"),
]
RUN_OPTIONS = [
    *("--data", "--split", "--model", "--method", "--option", "--target", "--out", "--dtype"),
    *("--seed", "--shard"),
]
FLAGS = ("--multi-label", "--overwrite", "--shared-scale")


def commands() -> list[list[str]]:
    draw = random.Random(0)
    alone = [[o, draw.choice(WORDS)] for o in OPTIONS * 6] + [[w] for w in WORDS]
    several = [
        [draw.choice(WORDS), *draw.sample(FLAGS, draw.randrange(3))]
        + [word for o in draw.sample(OPTIONS, 3) for word in (o, draw.choice(WORDS))]
        for _ in range(60)
    ]
    run = ["run", "--data", "folder:in", "--out", "run", "--method", "saliency"]
    whole = [[*run, o, draw.choice(WORDS)] for o in RUN_OPTIONS * 4]
    whole += [["evaluate", draw.choice(WORDS), "--metrics", draw.choice(WORDS)] for _ in range(9)]
    whole += [["report", draw.choice(WORDS), "--out", draw.choice(WORDS)] for _ in range(9)]
    explained = [["explain", "one.png", "--method", "saliency", *c] for c in alone + several]
    return (
        explained
        + whole
        + [
            [command, word]
            for command in ("methods", "models", "cache", "explain")
            for word in WORDS[:9]
        ]
    )


@pytest.mark.usefixtures("instant", "photographs")
def test_odd_commands_get_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: models.Pretrained
):
    def load(name, *, weights, path, **_):
        """Find what the real one would, and build nothing."""
        if name not in models.names():
            models.skeleton(name)
        published.find(name, weights)
        if path is not None:
            open_checkpoint(path)
        return tiny

    monkeypatch.setattr(models, "load", load)
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    Path("in").mkdir()
    Path("one.png").rename("in/cat.png")
    Image.new("RGBA", (20, 16)).save("one.png")
    Path("notes.txt").write_text("Katze\n")
    Path("cut.png").write_bytes(Path("two.png").read_bytes()[:99])
    kept = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    assert len(commands()) > 200
    for command in commands():
        result = CliRunner().invoke(main, command)
        assert isinstance(result.exception, SystemExit | None), (command, result.exception)
        assert result.exit_code in (0, 1, 2), command
        if result.exit_code:
            assert "Error: " in result.output, command
        assert "Traceback" not in result.output
        for file, content in kept.items():
            assert file.read_bytes() == content, (command, file)
