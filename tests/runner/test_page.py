"""The page of a run in a real browser: keyboard, small screen, slider, filter, sort."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("grain")
from browser import opened

from jaxattr.data import Source, record
from jaxattr.models import Preprocess
from jaxattr.runner import Job, evaluate, explain, report

PREPARE = Preprocess(16, 16)
W = np.random.default_rng(0).normal(size=(16 * 16 * 3, 3)).astype(np.float32)
JOB = Job("made up", "dense", {"saliency": {}, "input_x_gradient": {}}, batch=4)
ORDER = "[...document.querySelectorAll('.example .faint')].map(e => e.textContent)"
INK = (
    "document.querySelector('canvas').getContext('2d').getImageData(0, 0, 16, 16).data"
    ".reduce((sum, v) => sum + v, 0)"
)


def model(x):
    return jnp.tanh(x.reshape(len(x), -1) @ W / 20)


def read(i):
    pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
    return record(f"im{i}", pixels, labels=[i % 3])


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path):
    source, out = Source("made up", ("ant", "bee", "cat"), range(4), read), tmp_path / "run"
    explain(JOB, source, model, PREPARE, out, progress=False)
    evaluate(out, source, model, PREPARE, {"insertion": {"step": 64}}, progress=False)
    with opened(report(out, source, PREPARE), tmp_path / "profile") as page:
        page.run("Promise.all([...document.images].map(i => i.decode()))")
        assert page.run("document.querySelectorAll('polyline').length") == 2
        assert page.run("document.getElementById('bibtex').textContent").startswith("@")
        order = page.run(ORDER)
        assert [name for name in order if name.startswith("im")] == ["im0", "im1", "im2", "im3"]

        def reach(control):
            """Walk to a control by the tabulator."""
            page.run("document.activeElement.blur()")
            for _ in range(20):
                page.press("Tab")
                if page.run("document.activeElement.id") == control:
                    return
            raise AssertionError(f"no key leads to {control}")

        reach("class")
        page.press("ArrowDown")
        assert page.run("document.getElementById('class').value") == "ant"
        assert page.run("document.getElementById('count').textContent") == "2 of 4"
        page.press("ArrowUp")
        reach("sort")
        page.press("ArrowDown")
        assert page.run("JSON.parse(document.getElementById('sort').value)")[0] == "score"
        scores = "[...document.querySelectorAll('.example')].map(e => parseFloat("
        scores += "e.querySelectorAll('figcaption.faint')[1].textContent.split(' ')[1]))"
        found = page.run(scores)
        assert len(found) == 4
        assert found == sorted(found, reverse=True)
        page.press("End")
        assert page.run("JSON.parse(document.getElementById('sort').value)")[0] == "apart"
        before = page.run(INK)
        reach("blend")
        page.press("End")
        assert page.run("document.getElementById('blend').value") == "100"
        blended = page.run(INK)
        assert blended != before
        inked = INK.replace("('canvas')", "('canvas[aria-label^=input]')")  # of both signs
        signed = page.run(inked)
        reach("sign")
        page.press(" ")
        assert not page.run("document.getElementById('sign').checked")
        assert page.run(inked) != signed
        page.resize(360, 640)
        assert page.run("document.documentElement.scrollWidth") <= 360
        assert page.run("getComputedStyle(document.getElementById('controls')).position") == (
            "static"
        )
        assert not page.faults
