"""Which claims of a lesson can fail: its `ok:` lines, run where they should not hold.

python -m tools.measure.claims [02] [--under untrained shuffled]

A lesson is run again, in memory, under one condition at a time:

seed 1, 2, 3   other random numbers: every claim must hold
untrained      Adam and SGD change nothing, stored models have random weights
shuffled       each pixel value of a batch of images comes from another of them
rival          a rival stands in the place of the winner (RIVALS)

Runs are kept in build/claims/ until the lesson changes; docs/claims.md has the table.
"""

import ast
import json
import multiprocessing
import os
import re
import sys
from functools import partial
from itertools import product
from pathlib import Path

import torch

from gencourse import data, faces, referee, store, train  # noqa: F401
from tools import command
from tools.publish import notebooks
from tools.publish.notebooks import tags

KEPT = notebooks.ROOT / "build/claims"
PAGE = notebooks.ROOT / "docs/claims.md"
STEPS = 20  # untrained: as good as any number of steps that do nothing
CONDITIONS = ["seed 1", "seed 2", "seed 3", "untrained", "shuffled", "rival"]
RIVALS = {  # one Gaussian for the mixture, and for the flow
    "02": ("GaussianMixture(20", "GaussianMixture(1"),
    "06": ('"flow": flow.sample(N_JUDGED, rng)', '"flow": one.sample((N_JUDGED,))'),
}
MARK = "<!-- python -m tools.measure.claims writes what follows -->\n"


def switch_learning_off() -> None:
    fit, pretrained = train.fit, store.pretrained

    def short_fit(*given, steps=STEPS, **others):
        return fit(*given, steps=min(steps, STEPS), **others)

    def forgetful(*which):
        model = pretrained(*which)
        for part in model.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        return model

    torch.optim.Adam.step = torch.optim.SGD.step = lambda self, closure=None: None
    train.fit, store.pretrained = short_fit, forgetful


def shuffle_data() -> None:
    render, load = faces.render, data.load

    def mixed(x):
        return x.gather(0, torch.rand(x.shape).argsort(0))

    def shuffled(*which, **others):
        loaded = load(*which, **others)
        loaded.train.pixels = mixed(loaded.train.pixels)
        loaded.test.pixels = mixed(loaded.test.pixels)
        return loaded

    data.load = shuffled
    # `referee`, which is loaded already, keeps the renderer itself.
    faces.render = lambda *which, **others: mixed(render(*which, **others))


class Noting(ast.NodeTransformer):
    """Let `_failed(condition)` note an assertion that fails, and the cell go on."""

    def visit_Assert(self, node: ast.Assert | ast.Expr) -> ast.Try:
        text = ast.unparse(getattr(node, "test", node))
        (tried,) = ast.parse(f"try: _\nexcept AssertionError: _failed({text!r})").body
        tried.body = [node]
        return tried

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:  # torch.testing.assert_close
        return self.visit_Assert(node) if "assert_" in ast.unparse(node) else node


def lesson_code(path: Path) -> list:
    cells = [c for c in notebooks.read(path).cells if c.cell_type == "code"]
    return [cell for cell in cells if not {"exercise", "solution"} & tags(cell)]


def kept(path: Path, condition: str) -> tuple[Path, dict]:
    """Return where the run of a lesson is kept, and the claims that it has found."""
    file = KEPT / f"{path.stem}, {condition}.json"
    run = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    unchanged = run.get("source") == [cell.source for cell in lesson_code(path)]
    return file, run["claims"] if unchanged else {}


def measure(path: Path, condition: str) -> None:
    """Run a lesson; keep, for each of its `ok:` lines, which conditions failed."""
    if condition == "untrained":
        switch_learning_off()
    elif condition == "shuffled":
        shuffle_data()
    swap = RIVALS[path.name[:2]] if condition == "rival" else ("", "")
    cells, claims, failed = lesson_code(path), {}, []
    space = {"_failed": failed.append}
    sys.displayhook = lambda value: None
    os.chdir(notebooks.FOLDER)

    def note(cell_id: str, text: object = "", *_, **__) -> None:
        if str(text).startswith("ok:"):
            number = sum(key.startswith(cell_id) for key in claims)
            claims[f"{cell_id}.{number}"] = "; ".join(failed)
            failed.clear()

    for cell in cells:
        tree = Noting().visit(ast.parse(cell.source.replace(*swap)))
        tree = ast.Interactive(ast.fix_missing_locations(tree).body)
        space["print"] = partial(note, cell.id)
        failed.clear()
        try:
            exec(compile(tree, cell.id, "single"), space)
        except Exception as error:  # the claims of this cell are not reached
            print(f"  {cell.id} stopped: {type(error).__name__}: {error}", flush=True)
        if "parameters" in tags(cell) and condition.startswith("seed"):
            space["SEED"] += int(condition[-1])
    run = {"source": [cell.source for cell in cells], "claims": claims}
    command.write(json.dumps(run, indent=1), kept(path, condition)[0])


def mark(run: dict[str, str], claim: str) -> str:
    if not run:
        return "–"
    return "**fails**" if run.get(claim, "not reached") else "holds"


def table(path: Path) -> str:
    """Return a lesson's claims, and whether they hold under each condition."""
    runs = [kept(path, condition)[1] for condition in CONDITIONS]
    head = f"| claim | {' | '.join(CONDITIONS)} |\n{'| --- ' * (len(runs) + 1)}|"
    rows = [f"\n## {notebooks.heading(notebooks.read(path))[0]}\n", head]
    for cell in lesson_code(path):
        printed = notebooks.printed(cell)
        lines = re.findall(r"^ok: (.*(?:\n {4}.*)*)", printed, re.MULTILINE)
        for number, line in enumerate(lines):
            claim = " ".join(line.split()).replace("|", "\\|")
            marks = [mark(run, f"{cell.id}.{number}") for run in runs]
            rows.append(f"| {claim} | {' | '.join(marks)} |")
    return "\n".join(rows) + "\n" if any(runs) else ""


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("lesson", nargs="?", default="", help="02, say; default: all")
    parser.add_argument("--under", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    args = parser.parse_args()
    # What a condition changes ends with its process.
    process = multiprocessing.get_context("spawn").Process
    for path, condition in product(notebooks.lessons(args.lesson), args.under):
        idle = condition == "rival" and path.name[:2] not in RIVALS
        if not idle and not kept(path, condition)[1]:
            print(f"{path.stem}, {condition}", flush=True)
            work = process(target=measure, args=(path, condition))
            work.start()
            work.join()
    introduction = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    tables = "".join(map(table, notebooks.lessons()))
    command.write(introduction + MARK + tables, PAGE)


if __name__ == "__main__":
    command.run(main)
