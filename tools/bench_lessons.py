"""How long each lesson takes, its slowest cells, its memory: Markdown on the screen.

python tools/bench_lessons.py            one after the other
python tools/bench_lessons.py --at-once  lessons 02 to 05 at the same time, too

The lessons run in copies; nothing is stored. Memory is the kernel's peak (Linux only).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nbformat
from nbclient import NotebookClient

from tools import notebooks

SLOWEST = 5


def peak_memory(client: NotebookClient) -> float:
    """The most memory that the kernel has had, in MiB; NaN where nobody tells."""
    try:
        pid = client.km.provisioner.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
    except (AttributeError, OSError):
        return float("nan")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def measure(path: Path) -> tuple[float, float, list[tuple[float, int, str]]]:
    """Run a lesson; return seconds, peak memory in MiB, and the slowest cells."""
    nb = notebooks.read(path)
    cells: list[tuple[float, int, str]] = []
    memory, started = [float("nan")], {}

    def begin(cell: nbformat.NotebookNode, cell_index: int) -> None:
        started[cell_index] = time.perf_counter()

    def end(cell, cell_index: int, execute_reply=None) -> None:
        taken = time.perf_counter() - started[cell_index]
        cells.append((taken, cell_index, cell.source.strip().splitlines()[0]))
        memory[0] = peak_memory(client)

    client = NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebooks.FOLDER)}},
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start
    return seconds, memory[0], sorted(cells, reverse=True)[:SLOWEST]


def one_by_one(paths: list[Path]) -> dict[str, float]:
    print("| lesson | seconds | peak memory, MiB | slowest cells (seconds) |")
    print("| --- | --- | --- | --- |")
    taken = {}
    for path in paths:
        seconds, memory, slowest = measure(path)
        taken[path.name] = seconds
        cells = "; ".join(f"`{line[:40]}` {s:.1f}" for s, _, line in slowest)
        print(
            f"| {path.stem[:2]} | {seconds:.0f} | {memory:.0f} | {cells} |", flush=True
        )
    return taken


def at_once(paths: list[Path], alone: float) -> None:
    """Run the lessons at the same time, each in a process of its own."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for path in paths:
            log = open(Path(folder) / path.stem, "w")  # noqa: SIM115 closed by exit
            command = [sys.executable, __file__, path.stem[:2]]
            runs.append(subprocess.Popen(command, stdout=log, stderr=log))
        codes = [run.wait() for run in runs]
        texts = [Path(folder, path.stem).read_text() for path in paths]
    seconds = time.perf_counter() - start
    for path, code, text in zip(paths, codes, texts, strict=True):
        if code:
            print(f"{path.name} failed:\n{text}")
    print(
        f"\n{len(paths)} lessons at once: {seconds:.0f} s, {seconds / alone:.2f} times "
        f"the sum of their times alone ({alone:.0f} s); "
        f"{sum(code == 0 for code in codes)} of {len(codes)} finished"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lesson", nargs="?", default="", help="02, say; all without")
    parser.add_argument("--at-once", action="store_true")
    options = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    print(f"{load}{os.cpu_count()} cores\n")
    paths = notebooks.lessons(options.lesson)
    alone = one_by_one(paths)
    if options.at_once:
        four = [path for path in paths if path.name[:2] in ("02", "03", "04", "05")]
        at_once(four, sum(alone[path.name] for path in four))


if __name__ == "__main__":
    main()
