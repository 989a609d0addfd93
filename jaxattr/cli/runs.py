"""The commands for whole data sets: run, evaluate, report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jaxattr.cli.errors import no_traceback
from jaxattr.cli.inputs import SEEDS, find_class, read_classes
from jaxattr.cli.running import keep_programs, timed

if TYPE_CHECKING:
    from jaxattr.data import Source
    from jaxattr.runner import Job

_OPTION = "An option of one of them, as lrp.epsilon=0.1: a number, true, false, or text."
_SHARD = "Part i of n independent processes: i/n, from 0/n.  [default: ask jax.distributed]"


@click.command("run")
@click.option("--data", required=True, help="A data set: tfds:imagenet_v2, folder:PATH, voc:PATH.")
@click.option("--split", help="Of the data set.  [default: the one that results are reported on]")
@click.option("--model", default="efficientnet_lite0", show_default=True, help="Its name.")
@click.option("--weights", help="Published weights by name.  [default: the best]")
@click.option("--checkpoint", help="Weights of your own: torch, safetensors, Orbax.")
@click.option("--key", help="Where its state dict is, as teacher.  [default: the usual places]")
@click.option("--no-ema", is_flag=True, help="Its last weights, not their average over training.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="How its keys begin, and become.")
@click.option("--classes", help="A file of the names of its classes, one in a line.")
@click.option("--method", required=True, help="Names, with commas between.")
@click.option("--option", "options", multiple=True, metavar="METHOD.NAME=VALUE", help=_OPTION)
@click.option(
    "--target",
    default="label",
    show_default=True,
    help="`label`, `all-labels` (an example for each), `top` (the likeliest class), or a class.",
)
@click.option("--out", required=True, help="A folder, or the URL of a bucket (gs://, s3://).")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="How maps are stored.",
)
@click.option("--channels", is_flag=True, help="Keep the channels of the maps, and not their sum.")
@click.option("--limit", type=click.IntRange(1), help="Only the first examples.")
@click.option(
    "--seed",
    type=SEEDS,
    default=0,
    show_default=True,
    help="Of methods that draw random numbers.",
)
@click.option("--shard", help=_SHARD)
@click.option("--threads", type=click.IntRange(0), default=2, show_default=True, help="Readers.")
def run(
    data: str,
    method: str,
    options: tuple[str, ...],
    target: str,
    out: str,
    shard: str | None,
    threads: int,
    no_ema: bool,
    classes: str | None,
    **rest: Any,
) -> None:
    """Explain a whole data set.

    The same command goes on with a run that was stopped. `jaxattr evaluate OUT` and
    `jaxattr report OUT` follow.
    """
    with no_traceback():
        from jaxattr.runner import Job, explain
        from jaxattr.runner.devices import connect
        from jaxattr.runner.jobs import TARGETS

        if shard is None:
            connect()

        methods = _options([name.strip() for name in method.split(",") if name.strip()], options)
        given = () if classes is None else read_classes(classes)
        job = Job(data, target=target, methods=methods, class_names=given, ema=not no_ema, **rest)
        model, preprocess, names = _load(job)
        if target not in TARGETS:
            job = job._replace(target=find_class(target, names))
        source = _open(job, names, needed=target in ("label", "all-labels"))
        keep_programs()
        summary = explain(job, source, model, preprocess, out, shard=shard, threads=threads)
    lost = len(summary.failures)
    click.echo(
        f"{out}: {summary.examples - lost} of {summary.examples} examples are explained, "
        f"{summary.explained} of them now, in {summary.seconds:.1f} s"
    )
    for example, reason in list(summary.failures.items())[:5]:
        click.echo(f"  example {example} is not: {reason}")
    if lost > 5:
        click.echo(f"  and {lost - 5} more, in {out}/batches")
    for name, found in summary.not_finite.items():
        if found:
            click.echo(f"  {len(found)} maps of {name} are not finite, the first of {found[0]}")


@click.command()
@click.argument("folder")
@click.option("--metrics", "metric", required=True, help="Names, with commas between.")
@click.option("--option", "options", multiple=True, metavar="METRIC.NAME=VALUE", help=_OPTION)
@click.option("--shard", help=_SHARD)
@click.option("--threads", type=click.IntRange(0), default=2, show_default=True, help="Readers.")
def evaluate(
    folder: str, metric: str, options: tuple[str, ...], shard: str | None, threads: int
) -> None:
    """Measure the maps of a run.

    Writes scores.csv, means.csv and comparisons.csv beside them, and prints the means.
    """
    with no_traceback():
        from jaxattr.runner import evaluate
        from jaxattr.runner.devices import connect
        from jaxattr.runner.measuring import OF_TRUTH
        from jaxattr.runner.tables import means

        if shard is None:
            connect()

        names = [name.strip() for name in metric.split(",") if name.strip()]
        measures = _options(names, options)
        job = _job_of(folder)
        model, preprocess, classes = _load(job)
        source = _open(job, classes, needed=any(name in OF_TRUTH for name in names))
        keep_programs()
        rows = evaluate(folder, source, model, preprocess, measures, shard=shard, threads=threads)
    for row in means(rows):
        click.echo(
            f"{row.method:32} {row.metric:24} {row.mean:.4f} +- {row.standard_error:.4f}  "
            f"({row.number} examples)"
        )


@click.command()
@click.argument("folder")
@click.option("--images", type=click.IntRange(0), default=48, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page.  [default: FOLDER/report.html]"
)
def report(folder: str, images: int, out: Path | None) -> None:
    """Write one HTML page that shows a run: scores, costs, maps side by side."""
    with no_traceback():
        from jaxattr.models.hub import beside
        from jaxattr.models.published import find
        from jaxattr.runner import report

        job = _job_of(folder)
        own = beside(job.checkpoint).preprocess if job.checkpoint and not job.weights else None
        preprocess = own or find(job.model, job.weights, file=job.checkpoint).preprocess
        source = _open(job, (), needed=False)
        path = report(folder, source, _square(preprocess), images=images, destination=out)
    click.echo(path)


def _job_of(folder: str) -> "Job":
    """Return the job of a run."""
    from jaxattr.runner import Job
    from jaxattr.runner.evaluating import finished
    from jaxattr.runner.store import open_store

    config = finished(open_store(folder), folder)
    return Job(**{name: config[name] for name in Job._fields})


def _load(job: "Job") -> tuple[Any, Any, tuple[str, ...]]:
    with timed(f"loading {job.model} ... "):
        from jaxattr.models import load
        from weights_conversion import pairs

        file: dict[str, Any] = {"path": job.checkpoint, "key": job.key, "ema": job.ema}
        file |= {"rename": pairs(job.rename) or None, "classes": job.class_names or None}
        model, preprocess, classes = load(job.model, weights=job.weights, **file)
    return model, _square(preprocess), classes


def _square(preprocess: Any) -> Any:
    """Return a preprocessing whose inputs have one shape, as the maps of a run do."""
    from jaxattr.models import PlainResize

    return preprocess._replace(square=True) if isinstance(preprocess, PlainResize) else preprocess


def _open(job: "Job", classes: tuple[str, ...], *, needed: bool) -> "Source":
    """Open the data set; its labels must be the model's classes where they are needed."""
    from jaxattr.data import open_source, with_classes

    source = open_source(job.data, split=job.split)
    try:
        return with_classes(source, classes)
    except ValueError:
        if needed:
            raise
        return source


def _options(names: list[str], given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the options of each name."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in given:
        whole, equals, value = text.partition("=")
        name, dot, option = whole.rpartition(".")
        if not (equals and dot and option) or name not in found:
            raise ValueError(
                f"--option {text!r} is not of the form NAME.OPTION=VALUE with a NAME of "
                f"{', '.join(names)}"
            )
        found[name][option] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
