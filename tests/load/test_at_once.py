"""Four lessons at once on this machine. Minutes: `make test-load`, not `make test`."""

import time
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from tools.measure import lessons
from tools.publish import notebooks

# How long each cell took: written by `make lessons`, believed for ten minutes.
TIMES = Path(__file__).parents[2] / "build" / "lessons.xml"


def seconds_alone(paths: list[Path]) -> float:
    """The sum of the lessons' times, one after the other."""
    if TIMES.is_file() and time.time() - TIMES.stat().st_mtime < 600:
        taken = {path.name: 0.0 for path in paths}
        for case in ET.parse(TIMES).iter("testcase"):
            if len(case):  # a failure, after which cells may have been left out
                break
            name = case.get("classname").removeprefix("notebooks.")
            if name in taken:
                taken[name] += float(case.get("time"))
        if all(taken.values()):
            return sum(taken.values())
    return sum(lessons.measure(path)[0] for path in paths)


def test_four_lessons_at_once_finish_within_memory_and_time():
    four = [p for p in notebooks.lessons() if p.name[:2] in lessons.AT_ONCE]
    assert len(four) == 4
    alone = seconds_alone(four)
    together, memory = lessons.at_once(four)
    print(f"\n{together:.0f} s at once, {alone:.0f} s one by one; MiB: {memory}")
    assert together <= 1.3 * alone
    # NaN where the system does not tell.
    assert torch.cuda.is_available() or not any(used >= 2048 for used in memory)
