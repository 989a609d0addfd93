"""Convert published or local weights, or look into a checkpoint, from the command line."""

from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
from flax import nnx

from .batch_norm import fold_batch_norm
from .cache import save
from .checkpoints import open_checkpoint
from .folders import sha256_of
from .matching import pairs
from .shards import files_of


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option("--weights", help="Published weights, e.g. IMAGENET1K_V1; the best by default.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Convert a local file.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder of the Orbax checkpoint.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--fold", is_flag=True, help="Fold each BatchNorm into the layer before it.")
@click.option("--key", help="Where the state dict is in the file, e.g. teacher or ema.module.")
@click.option("--no-ema", is_flag=True, help="The last weights, not their average over training.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="How keys begin, and become.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="List the keys, shapes, dtypes and the hash of a checkpoint, and, with a MODEL, all that "
    "does not fit it; convert nothing.",
)
def main(
    model: str | None,
    weights: str | None,
    source: Path | None,
    out: Path | None,
    dtype: str,
    fold: bool,
    key: str | None,
    no_ema: bool,
    rename: tuple[str, ...],
    check: Path | None,
) -> None:
    """Convert the weights of MODEL to an Orbax checkpoint, without torch.

    `weights_conversion.restore(DIR, model)` reads it back.
    """
    if check is None and (model is None or out is None):
        raise click.UsageError("give a MODEL and --out DIR, or --check FILE")
    if out is not None and out.exists() and (out.is_file() or any(out.iterdir())):
        raise click.BadParameter(f"{out} exists and is not an empty folder", param_hint="--out")
    try:
        file = {"key": key, "ema": not no_ema}
        if check is not None:
            list_checkpoint(check, **file)
            if model is not None:
                list_misfits(check, model, rename=pairs(rename) or None, **file)
        elif model is not None and out is not None:
            file = {"path": source, "rename": pairs(rename) or None, **file}
            convert_to(out, model, weights=weights, file=file, dtype=dtype, fold=fold)
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def list_checkpoint(path: Path, *, key: str | None, ema: bool) -> None:
    """Print every key of a checkpoint, reading (and so verifying) every array."""
    checkpoint = open_checkpoint(path, key=key, ema=ema)
    width = max(map(len, checkpoint))
    size = 0
    for name, array in checkpoint.items():
        size += array.nbytes
        click.echo(f"{name:{width}}  {array.dtype!s:10}  {array.shape}")
    if found := checkpoint.key:
        click.echo(f"from {found!r} in the file")
    for file in files_of(path):
        each = f"sha256 {sha256_of(file)}"
        click.echo(f"{len(checkpoint)} arrays, {size / 2**20:.1f} MiB, {each}")


def list_misfits(
    path: Path, model: str, *, key: str | None, ema: bool, rename: dict[str, str] | None
) -> None:
    """Print all that does not fit between a checkpoint and a model."""
    from jaxattr.models import misfits  # jaxattr.models itself imports this package

    found = misfits(model, path, key=key, ema=ema, rename=rename)
    click.echo("\n".join([f"{model}: {len(found)} misfits", *found]))


def convert_to(
    out: Path, name: str, *, weights: str | None, file: dict[str, Any], dtype: str, fold: bool
) -> None:
    """Convert weights and write them."""
    from jaxattr.models import load  # jaxattr.models itself imports this package

    loaded = load(name, weights=weights, dtype=jnp.dtype(dtype), **file)
    model = loaded.model
    if fold:
        size = loaded.preprocess.geometry((256, 256)).input_size
        model = fold_batch_norm(model, jax.ShapeDtypeStruct((1, *size, 3), dtype))
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    save(state, out)
    leaves = jax.tree.leaves(state)
    size = sum(leaf.nbytes for leaf in leaves)
    click.echo(f"{name}: {len(leaves)} arrays, {size / 2**20:.1f} MiB, in {out}")


if __name__ == "__main__":
    main(prog_name="python -m weights_conversion")
