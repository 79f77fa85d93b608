"""What the benchmarks share: the machine, fair timing, and tables in Markdown."""

import os
import platform
import statistics
import time
from collections.abc import Callable

import torch

from gencourse import train

DEVICE = train.best_device()


def seconds_in_turns(
    runs: int, *contestants: Callable[[], object]
) -> list[list[float]]:
    """Return the seconds of each contestant in each round, after a round to warm up.

    A busy machine slows all contestants alike, since they run in turns.
    """
    times: list[list[float]] = [[] for _ in contestants]
    for turn in range(runs + 1):
        for seconds, contestant in zip(times, contestants, strict=True):
            start = time.perf_counter()
            contestant()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds.append(time.perf_counter() - start)
    return times


def median_seconds(runs: int, contestant: Callable[[], object]) -> float:
    (seconds,) = seconds_in_turns(runs, contestant)
    return statistics.median(seconds)


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of slow / fast, round by round."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def machine() -> str:
    """Return what the numbers were measured with."""
    name = (
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    )
    if DEVICE.type == "cuda":
        name += f", {torch.cuda.get_device_name()}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return name + load


def header(*names: object) -> None:
    row(*names)
    row(*["---"] * len(names))


def row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)
