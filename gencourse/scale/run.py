"""A run: the same loop in every process."""

import argparse
import contextlib
import functools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import torch

from gencourse import steps, store, train
from gencourse.scale.checkpoints import Folder, restore, snapshot
from gencourse.scale.request import (
    Problem,
    build,
    check_batch,
    load_images,
    settings_of,
)
from gencourse.scale.share import SharedNoise, share

STARTER = "GENCOURSE_STARTER"  # tells a process that Fabric starts who started it


def run(asked: argparse.Namespace, fabric: Any, stop: "Stop") -> int:
    """Train on all processes; returns the exit code."""
    os.environ[STARTER] = str(os.getpid())
    try:
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise Problem(f"the processes could not be started: {error}") from error
    finally:
        del os.environ[STARTER]
    first = fabric.global_rank == 0
    say = functools.partial(print, flush=True) if first else lambda _: None
    # Fast algorithms whose sums vary from run to run would make no run repeatable.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False

    problem = folder = None
    with fabric.rank_zero_first(local=True):  # one process fills the cache for all
        try:
            images = load_images(asked)
        except (ValueError, RuntimeError, OSError) as error:
            problem = error
    with _together(fabric):
        if problem:
            raise problem
        check_batch(asked, fabric.world_size)
        if len(images) < asked.batch_size:
            raise Problem(
                f"--batch-size {asked.batch_size} is more than the {len(images)} "
                "images: take a smaller one"
            )
        train.seed_everything(asked.seed)
        step = build(asked, images.pixels.shape[1], fabric.device, asked.seed)
        if first:
            settings = settings_of(asked) | {"images": len(images)}
            folder = Folder(asked.out, settings, asked.resume)

    if fabric.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(fabric.device)
        if images.pixels.nbytes < free / 4:
            images = images.to(fabric.device)
    batches = images.batches(asked.batch_size, seed=asked.seed, drop_last=True)
    rows_of = functools.lru_cache(maxsize=1)(batches.rows)
    per_epoch = len(batches)
    total = asked.steps or (asked.epochs or 10) * per_epoch
    saved = folder and folder.saved
    if saved is None:
        steps.start_decoder(step.model, images[rows_of(0)[0]].to(fabric.device))
    # Sent to all even at the start: processors of two kinds may draw other weights.
    restore(step, *fabric.broadcast(saved or snapshot(step)))

    noise = SharedNoise(step)
    share(step, fabric, noise, asked.accumulate)
    each = asked.batch_size // fabric.world_size // asked.accumulate
    say(
        f"{asked.model} on {asked.data}: {images}, {fabric.device.type}. Batch "
        f"{asked.batch_size} = {fabric.world_size} processes x {asked.accumulate} "
        f"parts x {each} images. From step {step.steps_done} to {total}."
    )

    written, since = step.steps_done, time.perf_counter()
    with stop.after_a_step(), noise:
        while step.steps_done < total:
            epoch, batch = divmod(step.steps_done, per_epoch)
            rows = rows_of(epoch)[batch].chunk(fabric.world_size)[fabric.global_rank]
            try:
                values = step(images[rows])
            except FloatingPointError as error:
                told = (
                    f"training stopped at step {step.steps_done + 1}: {error}. The "
                    f"last checkpoint is of step {written}. Start anew in another "
                    "folder with a smaller --lr, and with --precision 32"
                )
                raise Problem(told if first else "", code=1) from error
            done = step.steps_done
            # A signal that one process got stops all.
            pressed = int(fabric.all_reduce(stop.pressed, reduce_op="max"))
            if first:
                folder.add(done, epoch + 1, values)
            if done % asked.checkpoint_every == 0 or done == total or pressed:
                # All take part, so that none runs ahead of a failed write.
                with _together(fabric, f"no checkpoint at step {done}: ", code=1):
                    if first:
                        folder.checkpoint(done, *snapshot(step))
                speed = (done - written) * asked.batch_size
                speed /= time.perf_counter() - since
                numbers = ", ".join(f"{k} {v:.5g}" for k, v in values.items())
                say(
                    f"step {done} of {total}, epoch {epoch + 1}: {numbers}; "
                    f"{speed:,.0f} images/s"
                )
                written, since = done, time.perf_counter()
            if pressed and done < total:
                say(
                    f"Stopped by {signal.Signals(pressed).name} at step {done} of "
                    f"{total}; all of it is in {asked.out}. Go on with the same "
                    "command and --resume."
                )
                return 128 + pressed
    if first:
        if asked.ema:
            step.use_average()
        path = asked.out / "model.safetensors"
        store.save(step.model, path)
        say(
            f"Step {step.steps_done}: the model is in {path}; read it with "
            f"store.load({type(step.model).__name__}, ...)"
        )
    return 0


@contextlib.contextmanager
def _together(fabric: Any, what: str = "", code: int = 2) -> Iterator[None]:
    """Raise Problem in all processes where one has one; only one of them says it."""
    problem = None
    try:
        yield
    except (Problem, ValueError, RuntimeError, OSError) as error:
        problem = f"{what}{error}"
    of_first = fabric.broadcast(problem)
    if fabric.all_reduce(int(problem is not None), reduce_op="max"):
        told = problem and (of_first is None or fabric.global_rank == 0)
        raise Problem(problem if told else "", code)


class Stop:
    """While open, Ctrl-C and SIGTERM end the command: in training after the step."""

    def __enter__(self) -> "Stop":
        self.pressed, self.waits = 0, False
        self.previous = {
            number: signal.signal(number, self.press)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def press(self, number: int, _: object) -> None:
        if not self.waits or (self.pressed and number == signal.SIGINT):
            raise SystemExit(128 + number)
        self.pressed = number

    @contextlib.contextmanager
    def after_a_step(self) -> Iterator[None]:
        """Here a first signal only asks to stop; a second Ctrl-C stops at once."""
        self.waits = True
        yield
        self.waits = False

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
