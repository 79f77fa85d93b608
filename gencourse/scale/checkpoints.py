"""What a run writes, so that it can resume exactly where it stopped."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gencourse import steps, store
from gencourse.scale.request import Problem

_FORMAT = "gencourse checkpoint 1"


def snapshot(step: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a step needs to go on: tensors, and numbers that JSON can hold."""
    tensors = {f"model.{k}": v for k, v in step.model.state_dict().items()}
    if getattr(step, "ema", 0):
        average = step.average.state_dict()
        tensors |= {f"average.{k}": v for k, v in average.items()}
    for name, optimizer in _optimizers(step).items():
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{k}": v for k, v in state.items()}
    if getattr(step, "rng", None) is not None:
        tensors["rng"] = step.rng.get_state()
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    names = [name for name in ("steps_done", "g_loss") if hasattr(step, name)]
    return tensors, {name: getattr(step, name) for name in names}


def restore(step: Any, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put what `snapshot` took into a step of the same kind."""

    def under(prefix: str) -> dict[str, Tensor]:
        at = len(prefix) + 1
        return {k[at:]: v for k, v in tensors.items() if k.startswith(prefix + ".")}

    step.model.load_state_dict(under("model"))
    if getattr(step, "ema", 0):
        step.average.load_state_dict(under("average"))
    for name, optimizer in _optimizers(step).items():
        for i, p in enumerate(steps.weights(optimizer)):
            for key, value in under(f"{name}.{i}").items():
                if value.dim():
                    # As the weights lie: fused Adam goes through memory in its order.
                    value = torch.empty_like(p, requires_grad=False).copy_(value)
                optimizer.state[p][key] = value.to(p.device)
    if "rng" in tensors:
        step.rng.set_state(tensors["rng"])
    vars(step).update(numbers)


def _optimizers(step: Any) -> dict[str, torch.optim.Optimizer]:
    found = vars(step).items()
    return {k: v for k, v in found if isinstance(v, torch.optim.Optimizer)}


class Folder:
    """What a run writes: run.json, losses.csv, checkpoints/ and model.safetensors.

    Only the first process has one. `saved` is the newest whole checkpoint, or None.
    Raises Problem for a folder that does not fit.
    """

    def __init__(self, path: Path, settings: dict[str, Any], resume: bool) -> None:
        self.path, self.settings = path, settings
        self.checkpoints = path / "checkpoints"
        description = path / "run.json"
        holds_run = description.is_file()
        if resume and not holds_run:
            raise Problem(f"{path} holds no run to go on with: leave out --resume")
        if holds_run and not resume:
            raise Problem(f"{path} holds a run: add --resume, or name another folder")
        try:
            if resume:
                self._compare(description)
            # A start that was killed may have left a file without its name.
            elif path.exists() and set(path.iterdir()) - set(path.glob(".partial-*")):
                raise Problem(f"{path} is not an empty folder: name another one")
            path.mkdir(parents=True, exist_ok=True)
            content = json.dumps(settings, indent=2) + "\n"
            store.write_whole(description, content.encode())
            self.checkpoints.mkdir(exist_ok=True)
            self.saved = self._latest()
            self.file = self._losses(self.saved[1]["steps_done"] if self.saved else 0)
        except OSError as error:
            raise Problem(f"cannot write in {path} ({error})") from error

    def _compare(self, description: Path) -> None:
        try:
            there = dict(json.loads(description.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise Problem(f"{description} is damaged: {error}") from error
        other = [
            f"{key} was {there.get(key)!r} and is now {self.settings.get(key)!r}"
            for key in sorted(there.keys() | self.settings.keys())
            if there.get(key) != self.settings.get(key)
        ]
        if other:
            raise Problem(
                f"{self.path} is of another run: {'; '.join(other)}. Take the same "
                "settings, or another folder without --resume"
            )

    def _steps(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def _latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        for path in reversed(self._steps()):
            try:
                return self._read(path)
            except (ValueError, OSError) as error:
                print(f"Not taken: {error}", file=sys.stderr)
        return None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, metadata = store.read(path)
        about = metadata.get("about", "")
        if metadata.get("sha256") != store.digest(_FORMAT, about, tensors):
            raise ValueError(f"{path} is damaged, or no checkpoint of this command")
        about = json.loads(about)
        if about["settings"] != self.settings:
            raise Problem(f"{path} is of a run with other settings: move it away")
        return tensors, about["numbers"]

    def checkpoint(self, done: int, tensors: dict, numbers: dict[str, Any]) -> None:
        """Write one, whole or not at all, and keep it and the one before."""
        about = json.dumps({"settings": self.settings, "numbers": numbers})
        digest = store.digest(_FORMAT, about, tensors)
        metadata = {"format": _FORMAT, "about": about, "sha256": digest}
        path = self.checkpoints / f"step-{done:09d}.safetensors"
        os.fsync(self.file.fileno())
        store.write_whole(path, safetensors.torch.save(tensors, metadata))
        steps = self._steps()
        before = [other for other in steps if other < path]
        for other in steps:
            # Those of later steps were not taken: they are damaged, and redone.
            if other not in (path, *before[-1:]):
                other.unlink()

    def _losses(self, done: int) -> Any:
        """losses.csv with the steps done: what came after a checkpoint is redone."""
        path = self.path / "losses.csv"
        if done and path.exists():
            content = path.read_bytes()
            line = re.search(rb"^%d,.*\n" % done, content, re.MULTILINE)
            if line is None:
                raise Problem(
                    f"{path} is damaged: it has no line for step {done}. Move it "
                    f"away to go on with a new one from step {done + 1}"
                )
            os.truncate(path, line.end())
        # Line by line, so that one can watch it grow and a crash costs nothing.
        return open(path, "a" if done else "w", encoding="utf-8", buffering=1)

    def add(self, done: int, epoch: int, values: dict[str, float]) -> None:
        """One line of losses.csv."""
        if self.file.tell() == 0:
            self.file.write(",".join(["step", "epoch", *values]) + "\n")
        self.file.write(",".join(map(repr, [done, epoch, *values.values()])) + "\n")
