"""A run over a data set beside the bare jitted loop, its memory, and what a killed run loses.

    python benchmarks/running.py FOLDER [--method saliency] [--batch 16] [--kills 20]

EfficientNet-Lite0 explains every photograph of FOLDER, once by a loop over arrays in memory that
keeps nothing, and once by `jaxattr.runner.explain`, which reads and writes as well. Printed:
photographs a second of both, their ratio and that of the CPU's seconds, which tells more on a
machine that does other work (from the second batch on, so that no compilation is counted); the
memory of the run after its first and its last batches; and, with `--kills`, whether a run that was
killed that often at random moments has the same files as one that was not.
"""

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import jax
import numpy as np
from tqdm import tqdm

import jaxattr
from jaxattr import catalogue
from jaxattr.data import batches, open_source
from jaxattr.models import load
from jaxattr.runner import Job, explain, writing


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def bare(job: Job, inputs: list[np.ndarray]) -> np.ndarray:
    """Return the seconds of the loop over all but the first batch, by the clock and of the CPU."""
    model, _, _ = load(job.model)
    (name,) = job.methods

    def attribute(model, x, target):
        a = catalogue.build(catalogue.find(name), lambda x: model(x))(x, target).sum(-1)
        return a, jax.nn.softmax(jaxattr.lowered(lambda x: model(x))(x))

    program, target = jax.jit(attribute), np.zeros(job.batch, int)
    jax.block_until_ready(program(model, inputs[0], target))
    start = clocks()
    for x in inputs[1:]:
        a = program(model, x, target)
    jax.block_until_ready(a)
    return clocks() - start


def whole(job: Job, folder: Path, out: Path) -> tuple[np.ndarray, list[float]]:
    """Return the seconds of a run from its second batch on, and memory in MiB after each batch."""
    model, preprocess, _ = load(job.model)
    source = open_source(job.data)
    times, memory, finish = [], [], writing.Writer.finish

    def noted(self, work, programs):
        done = finish(self, work, programs)
        times.append(clocks())
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return done

    writing.Writer.finish = noted
    explain(job, source, model, preprocess, out, progress=False)
    writing.Writer.finish = finish
    return times[-1] - times[0], memory


def killed(job: Job, out: Path, kills: int) -> bool:
    """Kill runs at random moments, and compare the files at the end with a whole run's."""
    (method,) = job.methods
    paths = out / "lived", out / "killed"
    begin = [sys.executable, "-m", "jaxattr", "run", "--data", job.data, "--target", "top"]
    rest = ["--method", method, "--batch", str(job.batch)]
    commands = [[*begin, *rest, "--out", str(path)] for path in paths]
    start = time.monotonic()
    subprocess.run(commands[0], check=True, stderr=subprocess.DEVNULL)
    usual = time.monotonic() - start
    rng = random.Random(0)
    for _ in tqdm(range(kills), unit="kill"):
        process = subprocess.Popen(commands[1], stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0, 1) * usual)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    subprocess.run(commands[1], check=True, stderr=subprocess.DEVNULL)
    files = [
        {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        for path in paths
    ]
    locks = [p for p in files[1] if p.name.endswith(".__lock")]
    return files[0] == {k: v for k, v in files[1].items() if k not in locks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", default="saliency")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    out = Path(mkdtemp())
    data = f"folder:{options.folder}"
    job = Job(data, "efficientnet_lite0", {options.method: {}}, target="top", batch=options.batch)
    source = open_source(data)
    count = len(source) // job.batch * job.batch
    job = job._replace(limit=count)
    preprocess = load(job.model).preprocess
    read = batches(source, preprocess, size=job.batch, indices=range(count))
    inputs = [batch.inputs for batch in read]
    loop = bare(job, inputs)
    del inputs
    run, memory = whole(job, options.folder, out / "run")
    rest = count - job.batch
    print(f"{rest} photographs, {options.method}, batches of {job.batch}")
    (ratio, of_cpu), rates = loop / run, (rest / loop[0], rest / run[0])
    print(f"bare {rates[0]:.1f}/s, run {rates[1]:.1f}/s")
    print(f"ratio {ratio:.3f}, of CPU seconds {of_cpu:.3f}")
    print(f"memory {memory[1]:.0f} MiB after two batches, {memory[-1]:.0f} after all")
    if options.kills:
        same = killed(job._replace(limit=None), out, options.kills)
        print(f"killed {options.kills} times: files {'equal' if same else 'DIFFERENT'}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
