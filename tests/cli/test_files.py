import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from PIL import Image

from jaxattr.cli import explaining, photographs
from jaxattr.cli.main import main

pytestmark = pytest.mark.usefixtures("no_programs_kept", "instant")


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["explain", "--method", "saliency", *map(str, args)])


def done(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.output


def last_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    return result.output.strip().splitlines()[-1]


def picture(path: str, seed: int = 0, size: tuple[int, ...] = (18, 16, 3)) -> bytes:
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    Image.fromarray(pixels).save(path)
    return Path(path).read_bytes()


def contents(folder: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}


def test_a_photograph_is_never_written_over():
    before = picture("cat.png")
    done("cat.png", "--out", ".")
    assert Path("cat.png").read_bytes() == before
    assert {p.name for p in Path().iterdir()} == {"cat.png", "cat.figure.png", "cat.saliency.npy"}
    twin = picture("cat.figure.figure.png", 1)
    for extra in ([], ["--overwrite"]):
        result = run("cat.figure.png", "cat.figure.figure.png", "--out", ".", *extra)
        assert "cat.figure.figure.png is read and would be written over" in last_line(result, 2)
    assert Path("cat.figure.figure.png").read_bytes() == twin


@pytest.mark.parametrize("name", ["cat.figure.png", "cat.saliency.npy"])
def test_a_file_of_another_origin_is_written_over_only_if_asked(name: str):
    picture("cat.png")
    theirs = picture("maps/cat.figure.png", 1)
    np.save("maps/theirs.npy", np.ones(3))
    Path("maps/theirs.npy").rename("maps/cat.saliency.npy")
    Path("maps", name).with_name("other").write_bytes(b"")
    for other in {"cat.figure.png", "cat.saliency.npy"} - {name}:
        Path("maps", other).unlink()
    theirs = Path("maps", name).read_bytes()
    said = last_line(run("cat.png"), 2)
    assert f"{Path('maps', name)} is there and was not written by" in said
    assert Path("maps", name).read_bytes() == theirs
    done("cat.png", "--overwrite")
    assert Path("maps", name).read_bytes() != theirs
    done("cat.png")


def test_photographs_of_one_name_are_told_apart():
    for i, name in enumerate(["a/one.png", "b/one.png", "b/one.bmp", "c/one.png"]):
        picture(name, i)
    done("b/one.png", "a/one.png", "b/one.bmp")
    first = contents("maps")
    names = ["one", "a-one", "b-one"]
    assert set(first) == {n + s for n in names for s in (".figure.png", ".saliency.npy")}
    done("c/one.png")  # of a later run
    assert {p.name for p in Path("maps").glob("c-*")} == {"c-one.figure.png", "c-one.saliency.npy"}
    assert first.items() <= contents("maps").items()


def test_folders_and_patterns_are_photographs_but_not_what_was_drawn():
    for i, name in enumerate(["in/b.png", "in/a.PNG", "in/deep/c.bmp", "in/.hidden/d.png"]):
        picture(name, i)
    Path("in/labels.csv").write_text("file,name")
    said = done("in", "in/a.PNG", "--out", "in")
    drawn = [line.partition(":")[0] for line in said.splitlines() if ".figure.png:" in line]
    assert drawn == [f"in/{name}.figure.png" for name in "abc"]
    again = done("in/*.png", "in/**/c.*", "--out", "other")
    assert {p.name[0] for p in Path("other").iterdir()} == {"b", "c"}
    assert "in/b.figure" not in again


def test_a_stopped_run_keeps_what_it_has_and_goes_on(
    instant: list[str], monkeypatch: pytest.MonkeyPatch
):
    for i in range(6):
        picture(f"in/{i}.png", i)
    done("in", "--out", "whole", "--batch", 2)
    draw = explaining._draw

    def fail(run, work, *args):
        if work.name == "3":
            raise KeyboardInterrupt
        draw(run, work, *args)

    monkeypatch.setattr(explaining, "_draw", fail)
    assert run("in", "--out", "maps", "--batch", 2).exit_code == 1
    kept = contents("maps")
    assert {n for n in kept if n.endswith("figure.png")} == {f"{i}.figure.png" for i in range(3)}
    monkeypatch.setattr(explaining, "_draw", draw)
    instant.clear()
    done("in", "--out", "maps", "--batch", 2)
    assert instant.count("saliency") == 2  # 3 and 4, then 5
    assert contents("maps") == {**contents("whole"), **kept}
    instant.clear()
    assert "6 of 6 photographs were done before" in done("in", "--out", "maps")
    assert not instant
    picture("in/4.png", 9)
    for changed in ([], ["--target", "2"], ["--overwrite"]):
        instant.clear()
        done("in", "--out", "maps", *changed)
        assert instant.count("saliency") == 1
    assert np.load("maps/4.saliency.npy").shape == (16, 16, 3)


def test_photographs_are_read_when_their_turn_comes(monkeypatch: pytest.MonkeyPatch):
    decode, read = photographs._decode, []

    def decoded(data: bytes) -> Image.Image:
        assert len(list(Path("maps").glob("*.figure.png"))) == len(read) // 2 * 2
        read.append(data)
        return decode(data)

    for i in range(6):
        picture(f"in/{i}.png", i)
    monkeypatch.setattr(photographs, "_decode", decoded)
    done("in", "--batch", 2)
    assert len(read) == 6


def test_what_cannot_be_read_is_named_and_left_out():
    for i in range(3):
        picture(f"in/{i}.png", i)
    Path("in/0cut.png").write_bytes(Path("in/0.png").read_bytes()[:200])
    Path("notes.txt").write_text("no image")
    Image.new("F", (20, 20)).save("in/deep.tif")
    Path("in/locked.png").symlink_to("in")
    result = run("in", "notes.txt", "--batch", 2)
    last_line(result, 1)
    *_, head, cut, deep, notes = result.output.strip().splitlines()
    assert head == "Error: of 6 photographs, these went wrong:"
    assert cut.startswith("  in/0cut.png cannot be read: ")
    assert deep.startswith(
        "  in/deep.tif cannot be used: the values of an image of mode 'F' have no known range"
    )
    assert notes == "  notes.txt is no image that Pillow can read"
    assert {p.name[0] for p in Path("maps").iterdir()} == {"0", "1", "2"}
    assert "Left out: notes.txt" in result.output


def test_a_full_disk_names_the_file_and_leaves_no_half_of_it(monkeypatch: pytest.MonkeyPatch):
    picture("one.png")
    done("one.png")
    before = contents("maps")

    def fail(figure: Figure, stream: io.BytesIO, **_: object) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    said = last_line(run("one.png", "--overwrite"), 2)
    assert said == "Error: cannot write maps/one.figure.png: No space left on device"
    assert contents("maps") == before


def test_what_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch, instant: list[str]):
    from jaxattr.cli import explain

    stub = explain.program
    for i in range(3):
        picture(f"in/{i}.png", i)

    def spoiled(title: str, function: object):
        run = stub(title, function)

        def program(net, x, *target):
            found = run(net, x, *target)
            if title == "saliency":
                found[0][1] = np.nan
            return found

        return program

    monkeypatch.setattr(explain, "program", spoiled)
    result = run("in", "--method", "saliency,deconvnet")
    assert last_line(result, 1) == "  in/1.png: the map of saliency is not finite"
    written = {p.name for p in Path("maps").glob("1.*")}
    assert written == {"1.figure.png", "1.deconvnet.npy"}
    monkeypatch.setattr(explain, "program", lambda *_: lambda net, x: np.full((len(x), 6), np.nan))
    said = last_line(run("in", "--overwrite"), 2)
    assert "the model's logits are not finite: its weights, or how it uses them, give nan" in said


def test_transparency_and_12_bits_are_told():
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save("clear.png")
    Image.fromarray(np.full((16, 16), 4000, np.uint16)).save("deep.png")
    said = done("clear.png", "deep.png")
    assert "Warning: clear.png: its transparency is dropped; --background white shows it" in said
    assert "Warning: deep.png: the largest value of the 16-bit image is 4000, as of 12-bit" in said
    black = np.load("maps/clear.saliency.npy")
    assert "Warning" not in done("clear.png", "--background", "white")
    white = np.load("maps/clear.saliency.npy")
    assert (white > 2).all()
    assert (black < -1).all()


@pytest.mark.slow
def test_an_interrupt_ends_the_program_also_within_c():
    code = """
import ctypes, signal, sys, threading, os
from jaxattr import models
from jaxattr.cli.main import main
def load(name, **_):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    for _ in range(20):
        ctypes.CDLL(None).sleep(1)
    sys.exit(99)
models.load = load
main(["explain", "one.png"])
"""
    picture("one.png")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr
    assert "Interrupted. What is written is whole" in ended.stderr
    assert "Traceback" not in ended.stderr
