"""How the cost of training grows: tables in Markdown, for docs/benchmarks.md.

python -m tools.measure.scaling [--runs 3] [--images 512]

Throughput against the common way (speed.py) for each family, image size and batch
size; the share of the time outside the model; fitted exponents; and how close the steps
come to the speed of matrix products on this machine.
"""

import statistics
import time
from collections.abc import Callable

import numpy
import torch
from torch.utils.flop_counter import FlopCounterMode

from gencourse import data, train
from gencourse.models import VAE
from gencourse.steps import VAEStep
from tools import command
from tools.measure import speed, timing
from tools.measure.timing import DEVICE, median_seconds, ratio

SIZES = ((28, 1), (32, 3), (64, 3))
BATCHES = (64, 128, 256, 512)


def images_of(size: int, channels: int, n: int) -> data.Images:
    return data.load("faces", size, channels=channels, train_size=n, test_size=1).train


def throughput(runs: int, n: int) -> None:
    timing.header(
        "family", "images", "batch", "images/s", "times the common way", "outside"
    )
    larger = ((128, 3),) if DEVICE.type == "cuda" else ()
    for size, channels in SIZES + larger:
        images = images_of(size, channels, n)
        for name in speed.FAMILIES:
            for batch in BATCHES:
                ours, theirs, bare = speed.epochs_in_turns(name, images, batch, runs)
                timing.row(
                    name,
                    f"{channels} x {size} x {size}",
                    batch,
                    f"{n / statistics.median(ours):,.0f}",
                    f"{ratio(theirs, ours):.2f}",
                    f"{1 - 1 / ratio(ours, bare):.0%}",
                )


def exponents(runs: int) -> None:
    """Fit seconds ~ x^a for a step or an epoch of a VAE as one quantity grows."""
    print()
    timing.header("what grows", "values", "seconds grow like")

    def step_of(size: int = 32, width: int = 16, batch: int = 128) -> Callable:
        step = VAEStep(VAE(size=size, width=width).to(DEVICE))
        x = images_of(size, 3, batch)[:batch].to(DEVICE)
        return lambda: [step(x) for _ in range(4)]

    def epoch_of(n: int) -> Callable:
        images = images_of(32, 3, n).to(DEVICE)
        step, batches = VAEStep(VAE().to(DEVICE)), images.batches(128)
        return lambda: train.fit(step, batches, epochs=1)

    for name, values, make in (
        ("side of the image", (16, 32, 64, 128), lambda v: step_of(size=v)),
        ("width of the network", (8, 16, 32, 64), lambda v: step_of(width=v)),
        ("batch", (32, 64, 128, 256, 512), lambda v: step_of(batch=v)),
        ("images per epoch", (512, 1024, 2048, 4096), epoch_of),
    ):
        taken = [median_seconds(runs, make(value)) for value in values]
        slope = numpy.polyfit(numpy.log(values), numpy.log(taken), 1)[0]
        timing.row(name, ", ".join(map(str, values)), f"its power {slope:.2f}")


def limits(runs: int) -> None:
    """Compare the operations per second of a step with those of matrix products."""
    a, b = torch.randn(2, 1024, 1024)
    product = median_seconds(runs, lambda: [a @ b for _ in range(5)]) / 5
    peak = 2 * 1024**3 / product
    print(f"\nProducts of 1024 x 1024 matrices: {peak / 1e9:.0f} GFLOP/s.\n")
    timing.header(
        "family, 3 x 32 x 32, batch 128",
        "GFLOP a step",
        "GFLOP/s",
        "of products",
        "time in convolutions",
    )
    x = images_of(32, 3, 128)[:128]
    for name, (model_class, make_step, _) in speed.FAMILIES.items():
        step = make_step(model_class())
        step(x)
        with FlopCounterMode(display=False) as counter:
            step(x)
        done = counter.get_total_flops()
        five = median_seconds(runs, lambda s=step: [s(x) for _ in range(5)])
        rate = 5 * done / five
        with torch.profiler.profile() as profile:
            for _ in range(5):
                step(x)
        spent = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
        inside = sum(taken for key, taken in spent.items() if "conv" in key)
        shares = f"{rate / peak:.0%}", f"{inside / sum(spent.values()):.0%}"
        timing.row(name, f"{done / 1e9:.2f}", f"{rate / 1e9:.0f}", *shares)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    print(
        f"{timing.machine()}; medians of {options.runs} runs of "
        f"{options.images} images\n"
    )
    started = time.perf_counter()
    throughput(options.runs, options.images)
    exponents(options.runs)
    if DEVICE.type == "cpu":  # a GPU's clock and number formats need other tools
        limits(options.runs)
    print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    command.run(main)
