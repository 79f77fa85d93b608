"""How long each lesson takes, its slowest cells and its memory: a table in Markdown.

python -m tools.measure.lessons [02]

The lessons run one after the other, in memory; nothing is stored. Memory is the
kernel's peak (Linux only).
"""

import re
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tools import command
from tools.measure import timing
from tools.publish import notebooks

SLOWEST = 5


def peak_memory(client: NotebookClient) -> float:
    """Return the kernel's peak memory in MiB; NaN where it is unknown."""
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


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("lesson", nargs="?", default="", help="02, say; default: all")
    lesson = parser.parse_args().lesson
    print(f"{timing.machine()}\n")
    timing.header("lesson", "seconds", "peak memory, MiB", "slowest cells (seconds)")
    for path in notebooks.lessons(lesson):
        seconds, memory, slowest = measure(path)
        cells = "; ".join(f"`{line[:40]}` {s:.1f}" for s, _, line in slowest)
        number = path.stem.partition("_")[0]
        timing.row(number, f"{seconds:.0f}", f"{memory:.0f}", cells)


if __name__ == "__main__":
    command.run(main)
