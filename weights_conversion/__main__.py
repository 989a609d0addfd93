"""Convert published or local weights, or look into a checkpoint, from the command line."""

from pathlib import Path

import click
import jax
import jax.numpy as jnp
from flax import nnx

from .batch_norm import fold_batch_norm
from .cache import save
from .checkpoints import open_checkpoint
from .folders import sha256_of


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option("--weights", help="Published weights, e.g. IMAGENET1K_V1; the best by default.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Convert a local file.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder of the Orbax checkpoint.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--fold", is_flag=True, help="Fold each BatchNorm into the layer before it.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="List the keys, shapes, dtypes and the hash of a checkpoint; convert nothing.",
)
def main(
    model: str | None,
    weights: str | None,
    source: Path | None,
    out: Path | None,
    dtype: str,
    fold: bool,
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
        if check is not None:
            list_checkpoint(check)
        elif model is not None and out is not None:
            convert_to(out, model, weights=weights, source=source, dtype=dtype, fold=fold)
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def list_checkpoint(path: Path) -> None:
    """Print every key of a checkpoint, reading (and so verifying) every array."""
    checkpoint = open_checkpoint(path)
    width = max(map(len, checkpoint))
    size = 0
    for name, array in checkpoint.items():
        size += array.nbytes
        click.echo(f"{name:{width}}  {array.dtype!s:10}  {array.shape}")
    click.echo(f"{len(checkpoint)} arrays, {size / 2**20:.1f} MiB, sha256 {sha256_of(path)}")


def convert_to(
    out: Path, name: str, *, weights: str | None, source: Path | None, dtype: str, fold: bool
) -> None:
    """Convert weights and write them."""
    from jaxattr.models import load  # jaxattr.models itself imports this package

    loaded = load(name, weights=weights, path=source, dtype=jnp.dtype(dtype))
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
