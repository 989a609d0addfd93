"""Do damaged checkpoints ever do more than load or be refused?

    python benchmarks/damaged_checkpoints.py [--count 100000]

Files of every format, a training script's among them, are damaged at random (bits, bytes, numbers,
cuts, pieces of other files) and opened. Each must load, or raise `CheckpointError` with a message
shorter than a thousand characters, in bounded time and memory.
"""

import logging
import sys
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import forged


@click.command()
@click.option("--count", default=100_000, show_default=True, help="How many files.")
def main(count: int) -> None:
    logging.disable(logging.WARNING)  # which weights are taken
    with tempfile.TemporaryDirectory() as folder:
        found = forged.open_mutants(Path(folder) / "mutant", count)
    for name, value in found._asdict().items():
        click.echo(f"{name:8} {value:.3g}" if isinstance(value, float) else f"{name:8} {value}")


if __name__ == "__main__":
    main()
