"""A run: the same loop in every process."""

import contextlib
import functools
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import torch

from gencourse import steps, store, train
from gencourse.data import Images
from gencourse.scale.checkpoints import Folder, restore, snapshot
from gencourse.scale.settings import Problem, Settings
from gencourse.scale.share import share


def run(settings: Settings, fabric: Any, stop: "Stop") -> int:
    """Train on all processes and return the exit code."""
    try:
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise Problem(f"the processes could not be started: {error}") from error
    tell = say if fabric.global_rank == 0 else lambda _: None
    images, step, folder = _prepare(settings, fabric)
    batches = images.batches(settings.batch_size, seed=settings.seed, drop_last=True)
    rows_of = functools.lru_cache(maxsize=1)(batches.rows)
    total = settings.steps or (settings.epochs or 10) * len(batches)
    saved = folder and folder.saved
    if saved is None:
        # At the brightness of the whole first batch: a step sees a share of it.
        first_batch = images[rows_of(0)[0]].to(fabric.device)
        steps.start_decoder(step.model, first_batch)
    # Sent to all even at the start: processors of two kinds may draw other weights.
    restore(step, *fabric.broadcast(saved or snapshot(step)))
    share(step, fabric)
    tell(
        f"{settings.model} on {settings.data}: {images}. Processes: "
        f"{fabric.world_size} on {fabric.device.type}, each with "
        f"{settings.batch_size // fabric.world_size} images of a batch of "
        f"{settings.batch_size}. From step {step.steps_done} to {total}."
    )

    written, since = step.steps_done, time.perf_counter()
    with stop.after_a_step():
        while step.steps_done < total:
            epoch, batch = divmod(step.steps_done, len(batches))
            rows = rows_of(epoch)[batch].chunk(fabric.world_size)[fabric.global_rank]
            try:
                values = step(images[rows])
            except FloatingPointError as error:
                kept = f"The last checkpoint is of step {written}"
                raise Problem(
                    f"training stopped at step {step.steps_done + 1}: {error}. "
                    f"{kept if written else 'There is no checkpoint yet'}. Start again "
                    "in another folder with a smaller --lr, and with --precision 32",
                    code=1,
                ) from error
            done = step.steps_done
            # A signal to one process stops all.
            pressed = int(fabric.all_reduce(stop.pressed, reduce_op="max"))
            if folder:
                folder.add(done, epoch + 1, values)
            if done % settings.checkpoint_every == 0 or done == total or pressed:
                # All take part, so that none runs ahead of a failed write.
                with _together(fabric, f"no checkpoint at step {done}: ", code=1):
                    if folder:
                        folder.checkpoint(done, *snapshot(step))
                speed = (done - written) * settings.batch_size
                speed /= time.perf_counter() - since
                numbers = ", ".join(f"{k} {v:.5g}" for k, v in values.items())
                tell(
                    f"step {done} of {total}, epoch {epoch + 1}: {numbers}; "
                    f"{speed:,.0f} images/s"
                )
                written, since = done, time.perf_counter()
            if pressed and done < total:
                tell(
                    f"Stopped by {signal.Signals(pressed).name} at step {done} of "
                    f"{total}. Everything is in {settings.out}: to continue, add "
                    "--resume to the same command."
                )
                return 128 + pressed
    if folder:
        _save_model(settings, step)
    return 0


def _prepare(settings: Settings, fabric: Any) -> tuple[Images, Any, Folder | None]:
    """Images, a new step and, in the first process, the folder."""
    # Fast algorithms whose sums vary from run to run would make no run repeatable.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    error = folder = None
    with fabric.rank_zero_first(local=True):  # one process fills the cache for all
        try:
            images = settings.load_images()
        except (ValueError, RuntimeError, OSError) as reason:
            error = reason  # raised only where no process waits for this one
    with _together(fabric):
        if error:
            raise error
        settings.check_batch(fabric.world_size)
        if len(images) < settings.batch_size:
            raise Problem(
                f"--batch-size {settings.batch_size} is more than the {len(images)} "
                "images: use a smaller one"
            )
        train.seed_everything(settings.seed)
        step = settings.build(images.pixels.shape[1], fabric.device)
        if fabric.global_rank == 0:
            facts = {"images": len(images), "fingerprint": fingerprint(images)}
            folder = Folder(settings.out, settings.decisive() | facts, settings.resume)
    if fabric.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(fabric.device)
        if images.pixels.nbytes < free / 4:
            images = images.to(fabric.device)
    return images, step, folder


def _save_model(settings: Settings, step: Any) -> None:
    if settings.ema:
        step.use_average()
    path = settings.out / "model.safetensors"
    store.save(step.model, path)
    say(
        f"Step {step.steps_done}: the model is in {path}; read it with "
        f"store.load({type(step.model).__name__}, ...)"
    )


def say(text: str, stream: TextIO | None = None) -> None:
    """Print, even if nobody reads any more: a closed terminal, a closed pipe."""
    with contextlib.suppress(OSError):
        print(text, file=stream or sys.stdout, flush=True)


def fingerprint(images: Images) -> list[float]:
    """16 numbers in [0, 1] that other images, or another order of them, change.

    They are means of pixels, weighted by a ramp. No hash, because processors of two
    kinds may round pixels differently.
    """
    rows = torch.linspace(0, len(images) - 1, min(len(images), 4096)).long()
    groups = [images[group].flatten() for group in rows.chunk(16)]
    return [(x * torch.linspace(0, 1, len(x))).mean().item() for x in groups]


@contextlib.contextmanager
def _together(fabric: Any, prefix: str = "", code: int = 2) -> Iterator[None]:
    """Raise the Problem of one process in all of them."""
    message = ""
    try:
        yield
    except (Problem, ValueError, RuntimeError, OSError) as error:
        message = f"{prefix}{error}"
    rank = fabric.global_rank if message else -1
    failed = int(fabric.all_reduce(rank, reduce_op="max"))
    if failed >= 0:
        raise Problem(fabric.broadcast(message, src=failed), code)


class Stop:
    """While open, Ctrl-C, SIGTERM and a closed terminal end the command.

    During training they do so after the step at hand.
    """

    def __enter__(self) -> "Stop":
        self.pressed, self.waits = 0, False
        numbers = [signal.SIGINT, signal.SIGTERM]
        # nohup ignores SIGHUP, and Windows has none.
        hangup = getattr(signal, "SIGHUP", None)
        if hangup and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        self.previous = {n: signal.signal(n, self.press) for n in numbers}
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
