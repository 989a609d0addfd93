"""Reading photographs: jaxattr's batches beside torch's DataLoader with torchvision's transforms.

    PYTHONPATH=tests python benchmarks/reading.py FOLDER [--workers 2] [--size 32] [--rounds 3]

Every photograph of FOLDER is decoded, resized, cropped and normalized for ResNet-50, with the same
number of workers, the two in turns. Printed: the best seconds of each, their ratio, photographs a
second, and the growth of this process's memory from the first round to the last.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

from jaxattr.data import batches, open_source
from jaxattr.models.published import find


def ours(folder: Path, workers: int, size: int) -> int:
    source = open_source(f"folder:{folder}")
    preprocess = find("resnet50").preprocess
    return sum(len(b.inputs) for b in batches(source, preprocess, size=size, threads=workers))


def theirs(folder: Path, workers: int, size: int) -> int:
    import torch
    from PIL import Image
    from torchvision_definitions import import_torchvision

    transform = import_torchvision().models.ResNet50_Weights.DEFAULT.transforms()
    paths = sorted(p for p in folder.iterdir() if p.suffix == ".jpg")

    class Photographs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> torch.Tensor:
            return transform(Image.open(paths[i]).convert("RGB"))

    loader = torch.utils.data.DataLoader(Photographs(), batch_size=size, num_workers=workers)
    return sum(len(batch) for batch in loader)


def timed(read: Callable[..., int], *given: object) -> tuple[float, int]:
    start = time.perf_counter()
    count = read(*given)
    return time.perf_counter() - start, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("--workers", 2), ("--size", 32), ("--rounds", 3)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    given = options.folder, options.workers, options.size
    rounds, memory = [], []
    for _ in range(options.rounds):
        rounds.append((timed(ours, *given), timed(theirs, *given)))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    (a, count), (b, other) = (min(column) for column in zip(*rounds, strict=True))
    assert count == other, (count, other)
    print(f"{count} photographs, {options.workers} workers, batches of {options.size}")
    print(f"jaxattr {a:.2f} s ({count / a:.0f}/s), torch {b:.2f} s, ratio {a / b:.2f}")
    print(f"memory {memory[0]:.0f} MiB after the first round, {memory[-1]:.0f} after the last")


if __name__ == "__main__":
    main()
