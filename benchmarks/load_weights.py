"""How long does VGG-16 take to load, and how much memory, from a torch file and from the cache?

VGG-16 with random weights (528 MB) is written by torch in both of its formats, then read in fresh
processes, by turns: by `torch.load` into torch's tensors; by `open_checkpoint` and `convert` into
Flax's; from the Orbax checkpoint in the cache. Time is the call alone, imports excluded, on the
clock and of the CPU; memory is the growth of the process's peak resident memory. Needs torch and
Linux:

    python benchmarks/load_weights.py [--rounds 5]

Medians of 5 rounds on 2 cores shared with other work (ratios of a busier run: up to 1.3 times
these):

    reader          format   seconds  ratio  CPU s  ratio  peak MB
    torch.load      zip         0.33   1.00   0.29   1.00      556
    torch.load      legacy      0.31   0.96   0.27   0.93      556
    open + convert  zip         1.66   5.10   1.33   4.55      558
    open + convert  legacy      0.88   2.69   0.70   2.41      558
    cache           zip         1.42   4.36   1.32   4.53     1062
    fill the cache  zip         7.43  22.76   3.26  11.19      563

Reading and converting needs the memory of one copy of the weights, as torch.load does; 0.16 s of it
go to the CRC-32 of the zip format, which torch.load does not check, the rest to transposing. Orbax
needs a second copy and is no faster than converting: the cache saves no time on this model.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

WIDTHS = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
FEATURES = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # torchvision's indices
DENSE = {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}


def write(folder):
    """Write VGG-16's state dict in torch's formats."""
    import torch

    state, inputs = {}, 3
    for index, width in zip(FEATURES, WIDTHS, strict=True):
        layer = torch.nn.Conv2d(inputs, width, 3)
        state |= {f"features.{index}.{k}": v for k, v in layer.state_dict().items()}
        inputs = width
    for index, sizes in DENSE.items():
        layer = torch.nn.Linear(*sizes)
        state |= {f"classifier.{index}.{k}": v for k, v in layer.state_dict().items()}
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)


def peak():
    """Return the peak resident memory of this process, in MB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1.024e-3 for line in status if line.startswith("VmHWM"))


def load(reader, path):
    """Load once in this process, and print seconds, CPU seconds and megabytes."""
    if reader == "torch.load":
        import torch

        def call():
            return torch.load(path)
    else:
        import jax
        from flax import nnx

        from jaxattr import models
        from weights_conversion import convert, open_checkpoint, restore_or_convert

        model = models.skeleton("vgg16")
        flatten = model.torch.flatten
        jax.block_until_ready(jax.numpy.zeros(1))

        def call():
            if reader == "open + convert":
                state = convert(open_checkpoint(path), model, flatten=flatten)
            else:
                state = restore_or_convert(path, model, name="vgg16", flatten=flatten)
            nnx.update(model, state)
            return jax.block_until_ready(nnx.state(model))

    memory, start, work = peak(), time.perf_counter(), time.process_time()
    kept = call()
    print(time.perf_counter() - start, time.process_time() - work, peak() - memory)
    del kept


CASES = [
    ("torch.load", "zip"),
    ("torch.load", "legacy"),
    ("open + convert", "zip"),
    ("open + convert", "legacy"),
    ("cache", "zip"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        load(*arguments.load)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder)
        environment = os.environ | {"JAXATTR_CACHE": str(folder / "cache")}

        def measure(reader, form):
            path = str(folder / f"{form}.pth")
            command = [sys.executable, __file__, "--load", reader, path]
            run = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            return tuple(map(float, run.stdout.split()))

        time.sleep(3)  # the hash of a file changed just now is not remembered
        filling = measure("cache", "zip")
        results = {case: [] for case in CASES}
        for _ in range(arguments.rounds):
            for case in CASES:
                results[case].append(measure(*case))
    rows = {
        case: [median(column) for column in zip(*runs, strict=True)]
        for case, runs in results.items()
    }
    reference, *_ = rows.values()
    print("reader          format   seconds  ratio  CPU s  ratio  peak MB")
    for (reader, form), row in (rows | {("fill the cache", "zip"): filling}).items():
        ratios = [value / base for value, base in zip(row, reference, strict=True)]
        print(
            f"{reader:15} {form:7} {row[0]:8.2f} {ratios[0]:6.2f} {row[1]:6.2f} {ratios[1]:6.2f}"
            f" {row[2]:8.0f}"
        )


if __name__ == "__main__":
    main()
