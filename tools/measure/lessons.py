"""How long each lesson takes, its slowest cells and its memory: a table in Markdown.

python -m tools.measure.lessons            one after the other
python -m tools.measure.lessons --at-once  then lessons 02 to 05 at the same time

The lessons run in memory; nothing is stored. Memory is the kernel's peak (Linux only).
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tools import command
from tools.measure import timing
from tools.publish import notebooks

SLOWEST = 5
AT_ONCE = ("02", "03", "04", "05")


def peak_memory(client: NotebookClient) -> float:
    """Return the most memory that the kernel has had, in MiB; NaN where unknown."""
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
    """Run lessons one after the other, print a row for each, and return seconds."""
    timing.header("lesson", "seconds", "peak memory, MiB", "slowest cells (seconds)")
    taken = {}
    for path in paths:
        seconds, memory, slowest = measure(path)
        taken[path.name] = seconds
        cells = "; ".join(f"`{line[:40]}` {s:.1f}" for s, _, line in slowest)
        timing.row(path.stem[:2], f"{seconds:.0f}", f"{memory:.0f}", cells)
    return taken


def at_once(paths: list[Path]) -> tuple[float, list[float]]:
    """Run lessons at the same time, each in a process of its own.

    Returns:
        The seconds until all have finished, and the peak memory of each in MiB.

    Raises:
        Failure: A lesson failed; the message is its output.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        runs, logs = [], [Path(folder) / path.stem for path in paths]
        for path, log in zip(paths, logs, strict=True):
            line = [sys.executable, "-m", "tools.measure.lessons", path.stem[:2]]
            with open(log, "w") as file:
                runs.append(
                    subprocess.Popen(line, cwd=notebooks.ROOT, stdout=file, stderr=file)
                )
        codes = [run.wait() for run in runs]
        texts = [log.read_text(errors="replace") for log in logs]
    seconds = time.perf_counter() - start
    if any(codes):
        shown = [text for code, text in zip(codes, texts, strict=True) if code]
        raise command.Failure("\n".join(shown))
    rows = [
        re.findall(r"^\| \d.*", text, re.MULTILINE)[-1].split("|") for text in texts
    ]
    return seconds, [float(row[3]) for row in rows]


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("lesson", nargs="?", default="", help="02, say; default: all")
    parser.add_argument("--at-once", action="store_true")
    options = parser.parse_args()
    print(f"{timing.machine()}\n")
    paths = notebooks.lessons(options.lesson)
    alone = one_by_one(paths)
    if options.at_once:
        four = [path for path in paths if path.name[:2] in AT_ONCE]
        together, memory = at_once(four)
        apart = sum(alone[path.name] for path in four)
        print(
            f"\n{len(four)} lessons at once: {together:.0f} s, {together / apart:.2f} "
            f"times the sum of their times alone ({apart:.0f} s); "
            f"{sum(memory):.0f} MiB at most"
        )


if __name__ == "__main__":
    command.run(main)
