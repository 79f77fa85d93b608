"""What a run saves, so that it can continue exactly where it stopped."""

import hashlib
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
from gencourse.scale.settings import Problem
from gencourse.scale.share import optimizers


def snapshot(step: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a step needs to continue: tensors, and numbers that JSON can hold."""
    tensors = {f"model.{k}": v for k, v in step.model.state_dict().items()}
    if getattr(step, "ema", 0):
        average = step.average.state_dict()
        tensors |= {f"average.{k}": v for k, v in average.items()}
    for name, optimizer in optimizers(step).items():
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{k}": v for k, v in state.items()}
    if getattr(step, "rng", None) is not None:
        tensors["rng"] = step.rng.get_state()
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    names = [name for name in ("steps_done", "g_loss") if hasattr(step, name)]
    return tensors, {name: getattr(step, name) for name in names}


def restore(step: Any, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put what `snapshot` returned into a step of the same kind."""

    def under(prefix: str) -> dict[str, Tensor]:
        at = len(prefix) + 1
        return {k[at:]: v for k, v in tensors.items() if k.startswith(prefix + ".")}

    step.model.load_state_dict(under("model"))
    if getattr(step, "ema", 0):
        step.average.load_state_dict(under("average"))
    for name, optimizer in optimizers(step).items():
        for i, p in enumerate(steps.weights(optimizer)):
            for key, value in under(f"{name}.{i}").items():
                if value.dim():
                    # In the memory layout of the weight, which fused Adam relies on.
                    value = torch.empty_like(p, requires_grad=False).copy_(value)
                optimizer.state[p][key] = value.to(p.device)
    if "rng" in tensors:
        step.rng.set_state(tensors["rng"])
    vars(step).update(numbers)


class Folder:
    """The folder of a run: run.json, losses.csv and checkpoints/.

    Only the first process opens it. `saved` is the newest undamaged checkpoint, as
    `snapshot` returned it, or None.

    Args:
        path: Created if it is missing.
        settings: What decides the numbers of the run, and facts about its images.
        resume: Continue the run in this folder.

    Raises:
        Problem: The folder contains something else, or cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        description = path / "run.json"
        try:
            if resume:
                self._compare(description, settings)
            else:
                self._create(description, settings)
            self.checkpoints.mkdir(exist_ok=True)
            for part in self.checkpoints.glob(".partial-*"):  # of a killed run
                part.unlink()
            self.saved = self._latest()
            done = self.saved[1]["steps_done"] if self.saved else 0
            self.losses = self._open_losses(done)
        except OSError as error:
            raise Problem(f"cannot write in {path} ({error})") from error

    def _create(self, description: Path, settings: dict[str, Any]) -> None:
        if description.is_file():
            raise Problem(
                f"{self.path} contains a run: add --resume, or name another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        for name in sorted(os.listdir(self.path)):
            # File browsers leave these in folders that look empty, and a run that was
            # killed while it started leaves a hidden file too.
            if not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini"):
                raise Problem(
                    f"{self.path} is not empty, it contains {name}: name another folder"
                )
        content = json.dumps(settings, indent=2) + "\n"
        store.write_whole(description, content.encode())

    def _compare(self, description: Path, now: dict[str, Any]) -> None:
        """Refuse to continue a run of other settings or images."""
        if not description.is_file():
            raise Problem(f"{self.path} contains no run to resume: leave out --resume")
        try:
            stored = dict(json.loads(description.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise Problem(f"{description} is damaged: {error}") from error
        differences = [
            f"{key} was {stored.get(key)!r} and is now {now.get(key)!r}"
            for key in sorted((stored.keys() | now.keys()) - {"fingerprint"})
            if stored.get(key) != now.get(key)
        ]
        pairs = zip(stored.get("fingerprint", []), now["fingerprint"], strict=False)
        if not differences and any(abs(a - b) > 1e-5 for a, b in pairs):
            differences = [f"{now['data']} now contains other images"]
        if differences:
            raise Problem(
                f"{self.path} is another run: {'; '.join(differences)}. Use the same "
                "settings and images, or another folder without --resume"
            )

    def _all(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def _latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        for path in reversed(self._all()):
            try:
                return self._read(path)
            except (ValueError, OSError) as error:
                print(f"Skipped: {error}", file=sys.stderr)
        return None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, metadata = store.read(path)
        numbers = metadata.get("numbers", "")
        if metadata.get("sha256") != _digest(numbers, tensors):
            raise ValueError(f"{path} is damaged, or not a checkpoint")
        return tensors, json.loads(numbers)

    def checkpoint(self, done: int, tensors: dict, numbers: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all; keep it and the one before."""
        metadata = {"numbers": json.dumps(numbers)}
        metadata["sha256"] = _digest(metadata["numbers"], tensors)
        path = self.checkpoints / f"step-{done:09d}.safetensors"
        os.fsync(self.losses.fileno())
        store.write_whole(path, safetensors.torch.save(tensors, metadata))
        checkpoints = self._all()
        before = [other for other in checkpoints if other < path]
        for other in checkpoints:
            # Later ones were damaged and skipped; their steps are done again.
            if other not in (path, *before[-1:]):
                other.unlink()

    def _open_losses(self, done: int) -> Any:
        """losses.csv, cut after the step of the checkpoint, where the run continues."""
        path = self.path / "losses.csv"
        if done and path.exists():
            content = path.read_bytes()
            line = re.search(rb"^%d,.*\n" % done, content, re.MULTILINE)
            if line is None:
                raise Problem(
                    f"{path} is damaged: it has no line for step {done}. Move it "
                    f"away to continue with a new one from step {done + 1}"
                )
            os.truncate(path, line.end())
        # Line by line, so that it can be watched and a crash loses nothing.
        return open(path, "a" if done else "w", encoding="utf-8", buffering=1)

    def add(self, done: int, epoch: int, values: dict[str, float]) -> None:
        """Write one line of losses.csv."""
        if self.losses.tell() == 0:
            self.losses.write(",".join(["step", "epoch", *values]) + "\n")
        self.losses.write(",".join(map(repr, [done, epoch, *values.values()])) + "\n")


def _digest(numbers: str, tensors: dict[str, Tensor]) -> str:
    content = numbers.encode() + safetensors.torch.save(tensors)
    return hashlib.sha256(content).hexdigest()
