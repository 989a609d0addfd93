"""One HTML page that shows a run: scores, costs, and a gallery of maps side by side."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from jaxattr import catalogue
from jaxattr.citations import cite, entries
from jaxattr.data import Source
from jaxattr.runner.evaluating import finished, mean_curves, positions, stored_rows
from jaxattr.runner.measuring import LOWER, METRICS
from jaxattr.runner.store import array_name, open_store
from jaxattr.runner.tables import Comparison, MeanRow, Row, comparisons, means

SIDE = 160
"""The longest side of a photograph in the gallery, in pixels."""


_MARK = b'content="jaxattr report"'


def report(
    out: str | Path,
    source: Source,
    preprocess: Any,
    *,
    images: int = 48,
    destination: str | Path | None = None,
) -> Path:
    """Write a page that shows a run, with all that it needs inside: no network, no other file.

    It has the mean scores with their standard errors, mean curves, the methods compared in pairs,
    what each method costs and who it is by, the configuration, BibTeX of what was used, and a
    gallery of examples, evenly spread over the run, with the maps of all methods: by class, sorted
    by a score or by how much two methods disagree (one less Pearson's correlation), blended with
    the photograph, signed or not.

    Args:
        out: what `explain` wrote, and `evaluate` measured, if it did.
        source: the data set that was explained.
        preprocess: what made its inputs, with `display`.
        images: how many examples the gallery has.
        destination: of the page; by default `report.html` in the folder of the run.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: if the run is not there, or not done.
        ValueError: if the run is in a bucket and no destination is given, or a file of another
            origin is there.
        OSError: if the page cannot be written.
    """
    if destination is None and "://" in str(out):
        raise ValueError(f"the page of {out} needs a place of its own: give a destination")
    path = Path(destination) if destination is not None else Path(out) / "report.html"
    if path.exists() and not (path.is_file() and _MARK in path.read_bytes()[:200]):
        raise ValueError(f"{path} is there and was not written by `jaxattr report`")
    store = open_store(out)
    job = finished(store, out)
    target = store.open_array("target").read().result()
    probability = store.open_array("probability").read().result()
    measured = [m for m in METRICS if store.names(f"scores/{m}")]
    rows = stored_rows(store, job, measured, target)
    known = [i for i, name in enumerate(job["ids"]) if name is not None and target[i] >= 0]
    chosen = [known[k] for k in np.linspace(0, len(known) - 1, min(images, len(known))).astype(int)]
    at = positions(store, source, len(target))
    arrays = {m: store.open_array(f"maps/{array_name(m)}") for m in job["methods"]}
    scores = _by_example(rows)
    gallery = []
    for i in chosen:
        record = source[int(at[i])]
        shown = preprocess.display(Image.fromarray(record.image))
        maps = {m: _drawable(a[i].read().result()) for m, a in arrays.items()}
        size = _fit(shown.size)
        gallery.append(
            {
                "id": job["ids"][i],
                "class": _class(job, int(target[i])),
                "probability": _number(probability[i]),
                "size": size,
                "photograph": _jpeg(shown.resize(size)),
                "maps": {m: _bytes(_resized(a, size)) for m, a in maps.items()},
                "scores": scores.get(i, {}),
                "disagreement": _disagreement(maps),
            }
        )
    content = {
        "title": f"{', '.join(job['methods'])} on {job['data']}",
        "methods": [_method(name, options) for name, options in job["methods"].items()],
        "means": list(map(_known, means(rows))),
        "comparisons": list(map(_known, comparisons(rows))),
        "curves": {m: found for m in measured if (found := mean_curves(store, m))},
        "gallery": gallery,
        "bibtex": _bibtex([*job["methods"], *measured]),
        "lower": [m for m in measured if m in LOWER],
        "examples": len(target),
        "explained": len(known),
        "configuration": {k: v for k, v in job.items() if k not in ("ids", "classes")},
    }
    page = files("jaxattr.runner").joinpath("page.html").read_text("utf-8")
    encoded = json.dumps(content, allow_nan=False, default=str).replace("<", "\\u003c")
    _write(path, page.replace("__CONTENT__", encoded))
    return path


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        with TemporaryDirectory(prefix=".jaxattr-", dir=path.parent) as folder:
            (Path(folder) / path.name).write_text(text, "utf-8")
            (Path(folder) / path.name).replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from None


def _known(row: MeanRow | Comparison) -> dict[str, Any]:
    """Return a row of a table, None for what is NaN: the error of one score, the mean of none."""
    values = row._asdict().items()
    return {k: _number(v) if isinstance(v, float) else v for k, v in values}


def _class(job: Mapping[str, Any], label: int) -> str:
    classes = job["classes"]
    return classes[label] if label < len(classes) else str(label)


def _method(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    chain = catalogue.find(name)
    return {
        "name": name,
        "options": dict(options),
        "summary": chain[0].summary,
        "cost": "; of it: ".join(m.facts.cost for m in chain),
        "reference": " ".join(dict.fromkeys(m.reference for m in chain if m.reference)),
    }


def _bibtex(names: Sequence[str]) -> str:
    """Return the papers of methods and metrics, as far as jaxattr knows them, and jaxattr's own."""
    parts = [part for name in names for part in name.split(":") if part in entries()]
    return cite(*dict.fromkeys(parts), "jaxattr")


def _by_example(rows: Sequence[Row]) -> dict[int, dict[str, dict[str, float | None]]]:
    found: dict[int, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        found.setdefault(row.example, {}).setdefault(row.metric, {})[row.method] = row.score
    return found


def _drawable(a: np.ndarray) -> np.ndarray:
    """Return a map `(H, W)` in [-1, 1], zero where it is not finite."""
    a = np.nan_to_num(a.astype(np.float32), posinf=0, neginf=0)
    a = a.sum(-1) if a.ndim == 3 else a
    # The largest hundredth is cut off, or one pixel would leave the rest pale.
    largest = np.quantile(np.abs(a), 0.99) or np.abs(a).max() or 1
    return np.clip(a / largest, -1, 1)


def _disagreement(maps: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    flat = {m: a.ravel() - a.mean() for m, a in maps.items()}
    norm = {m: float(np.linalg.norm(a)) or 1.0 for m, a in flat.items()}
    return {
        m: {n: round(1 - float(a @ b) / (norm[m] * norm[n]), 4) for n, b in flat.items() if n != m}
        for m, a in flat.items()
    }


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    share = min(SIDE / max(size), 1)
    return max(round(size[0] * share), 1), max(round(size[1] * share), 1)


def _resized(a: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(a).resize(size, Image.Resampling.BOX))


def _bytes(a: np.ndarray) -> str:
    """Return values in [-1, 1] as base64 of signed bytes."""
    return base64.b64encode((127 * a).round().astype(np.int8).tobytes()).decode()


def _jpeg(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return base64.b64encode(stream.getvalue()).decode()


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
