"""Is a method better than another, image by image?

    python benchmarks/differences.py OUT COLUMN METHOD OTHER

OUT is a folder of `photographs.py` or `boxes.py`, COLUMN the name of a metric there. Printed are
the mean of METHOD's scores less OTHER's on the same images, its standard error, and how many images
have both. What makes an image easy or hard for both cancels.
"""

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from scoreboard import means, read, results


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    for name in ("column", "method", "other"):
        parser.add_argument(name)
    options = parser.parse_args()
    one, two = (read(results(options.out, name)) for name in (options.method, options.other))
    column = options.column
    rows = [{column: a[column] - b[column]} for a, b in zip(one, two, strict=True)]
    mean, error = means(rows, [column])[column]
    number = np.isfinite([row[column] for row in rows]).sum()
    print(f"{mean:.4f} +- {error:.4f}, {number} images")


if __name__ == "__main__":
    main()
