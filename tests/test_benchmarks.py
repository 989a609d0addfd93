"""Benchmarks are run by hand; that they can be, and resume, is tested."""

import importlib
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
COMMAND = re.compile(r"python benchmarks/(\w+)\.py")


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_loads_and_names_its_command(script: Path):
    for peer in ("torch", "captum"):
        if re.search(f"^(import|from) {peer}", script.read_text(), re.MULTILINE):
            pytest.importorskip(peer, reason=f"compares with {peer}, which is not installed")
    module = importlib.import_module(script.stem)
    if hasattr(module, "main"):
        assert set(COMMAND.findall(module.__doc__)) == {script.stem}


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_pages_name_scripts_that_there_are(page: str):
    named = set(COMMAND.findall((ROOT / "docs" / page).read_text()))
    assert named or page not in {"learned.md", "metrics.md", "relevance.md", "speed.md"}
    assert named <= {script.stem for script in SCRIPTS}


def test_results_of_a_method_are_found_by_its_earlier_name(tmp_path):
    scoreboard = importlib.import_module("scoreboard")
    scoreboard.write(tmp_path / "smooth.csv", [{"insertion": 0.5}])
    scoreboard.write(tmp_path / "lpr.csv", [{"insertion": 0.25}])
    assert scoreboard.read(scoreboard.results(tmp_path, "smoothgrad")) == [{"insertion": 0.5}]
    assert scoreboard.read(scoreboard.results(tmp_path, "lpr")) == [{"insertion": 0.25}]
    assert scoreboard.results(tmp_path, "dmbp") == tmp_path / "dmbp.csv"
    scoreboard.write(tmp_path / "smoothgrad.csv", [{"insertion": 0.75}])
    assert scoreboard.results(tmp_path, "smoothgrad") == tmp_path / "smoothgrad.csv"


def test_a_table_goes_on_where_it_stopped(tmp_path):
    scoreboard = importlib.import_module("scoreboard")
    batches = [(np.arange(3 * i, 3 * i + 3),) for i in range(3)]
    seen: list[int] = []

    def scores(start: int, batch: tuple, *, last: int = 9) -> dict:
        if start >= last:
            raise KeyboardInterrupt
        seen.append(start)
        return {"square": jnp.asarray(batch[0] ** 2), "none": jnp.full(3, jnp.nan)}

    with pytest.raises(KeyboardInterrupt):
        scoreboard.measure(tmp_path / "a.csv", batches, lambda *a: scores(*a, last=6), 8)
    resumed = scoreboard.measure(tmp_path / "a.csv", batches, scores, 8)
    assert seen == [0, 3, 6]
    assert [row["square"] for row in resumed] == [n * n for n in range(8)]
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    # what is complete is not measured again
    np.testing.assert_equal(scoreboard.measure(tmp_path / "a.csv", batches, scores, 8), resumed)
    assert seen == [0, 3, 6]
    # nor counted twice where batches are of another size
    (tmp_path / "a.csv").unlink()
    scoreboard.measure(tmp_path / "a.csv", batches[:1], scores, 8)
    fours = [(np.arange(4),), (np.arange(4, 8),)]
    wide = lambda start, batch: {"square": batch[0] ** 2, "none": np.full(4, np.nan)}
    np.testing.assert_equal(scoreboard.measure(tmp_path / "a.csv", fours, wide, 8), resumed)
    found = scoreboard.means(resumed, ["square", "none"])
    values = np.arange(8.0) ** 2
    assert found["square"] == pytest.approx((values.mean(), values.std() / 8**0.5))
    assert np.isnan(found["none"][0])


def test_cells_are_kept_and_stand_beside_a_papers(tmp_path):
    """A stopped table goes on where it was; seeds are averaged; both numbers are shown."""
    tables = importlib.import_module("tables")
    wanted = [("lpr", f"40%, seed {i}") for i in range(3)]
    values = dict(zip(wanted, (1.0, 2.0, 6.0), strict=True))

    def measure(*key: str, allowed: list) -> object:
        if key not in allowed:
            raise KeyboardInterrupt
        return tables.Cell(values[key])

    path = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        tables.fill(path, wanted, lambda *key: measure(*key, allowed=wanted[:2]))
    cells = tables.fill(path, wanted, lambda *key: measure(*key, allowed=wanted[2:]))
    assert {key: c.mean for key, c in cells.items()} == values
    np.testing.assert_equal(tables.read(path), cells)
    (mean,) = tables.over_seeds(cells).values()
    assert mean == (3.0, pytest.approx(7**0.5 / 3**0.5), 3)
    published = {("lpr", "40%"): 71.83, ("random", "40%"): 73.6}
    tables.report(tmp_path / "table", tables.over_seeds(cells), published, digits=1)
    text = (tmp_path / "table.md").read_text()
    assert "| lpr | 3.0 ± 1.5 (71.8) |\n| random | (73.6) |" in text
    assert (tmp_path / "table.png").exists()


def test_a_paper_reads_its_baselines_in_its_own_way():
    readings, scoreboard = (importlib.import_module(n) for n in ("readings", "scoreboard"))
    a, x = jnp.array([[[[2.0, -3.0]]]]), jnp.array([[[[1.0, 2.0]]]])
    found = [
        readings.reading(paper, "saliency")(a, x).item()
        for paper in (readings.DMBP, readings.LPR, readings.TR_GBP, readings.RSP)
    ]
    assert found == [-4, 5, 5, -1]
    linear = lambda x: x.reshape(len(x), -1) @ jnp.array([[2.0], [-3.0]])
    target = jnp.array([0])
    names = "saliency x image", "magnitudes of saliency"
    rows = [scoreboard.attribution(n, linear)(x, target).sum().item() for n in names]
    assert rows == [-4, 5]


def test_one_box_fills_the_rectangle_around_it():
    boxes = importlib.import_module("boxes")
    one, two = np.zeros((2, 5, 6), bool)
    one[1:3, 2:] = True
    two[1:3, :2] = two[1:3, 4:] = True
    np.testing.assert_array_equal(
        boxes.around(two), np.pad(np.ones((2, 6), bool), ((1, 2), (0, 0)))
    )
    assert [boxes.is_one_box(m) for m in (one, two, np.ones((2, 2), bool))] == [
        True,
        False,
        True,
    ]
