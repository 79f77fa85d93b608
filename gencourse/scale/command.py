"""`gencourse train`: the lessons' steps on one or many devices, for hours or days.

    gencourse train vae faces --out runs/vae --epochs 20
    gencourse train vae faces --out runs/vae --epochs 20 --resume

Lightning Fabric starts the processes and carries tensors between them. Each process
holds the whole model and takes its share of every batch; gradients are averaged before
each update, so that all copies stay equal. docs/scaling.md says what is exact and what
is not, and how to use torchrun and Slurm. Skip at first reading.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from gencourse.scale.run import Stop, run, say
from gencourse.scale.settings import Problem, Settings, parse

NO_FABRIC = """\
this needs Lightning Fabric, which is not installed here:
  pip install "lightning-fabric>=2.5"
(In the folder of the course: pip install -c constraints.txt -e ".[scale]")"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 is success, 2 a wrong request, 1 a failed training. A run stopped by Ctrl-C,
    SIGTERM or SIGHUP ends with 128 + the number of the signal, as shells expect.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character must not end hours of training.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        settings = parse(arguments)
        fabric = _fabric(settings)
    except Problem as problem:
        say(f"gencourse train: {problem}", sys.stderr)
        return problem.code
    code = _run(settings, fabric)
    # If a process that Fabric started reports a failure, Fabric kills the whole run and
    # could cut short the message of the first process.
    return code if fabric.local_rank == 0 else 0


def _run(settings: Settings, fabric: Any) -> int:
    try:
        with Stop() as stop:
            code = run(settings, fabric, stop)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return code
    except Problem as problem:  # the same in all processes
        if fabric.global_rank == 0:
            say(f"gencourse train: {problem}", sys.stderr)
        return problem.code
    except (OSError, RuntimeError) as error:
        # A full disk, too little memory, or another process that was lost.
        say(
            f"gencourse train: training stopped: {error}. Add --resume to continue "
            f"from the last checkpoint in {settings.out}",
            sys.stderr,
        )
        return 1
    finally:
        # After kill -9 nobody does this: those that have not connected yet wait for
        # this process, half an hour at most.
        children = getattr(fabric.strategy.launcher, "procs", [])
        ended = children.copy()
        children.clear()  # Fabric watches this list, and kills us when one is killed
        for child in ended:
            child.kill()


def _fabric(settings: Settings) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise Problem(NO_FABRIC) from error
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    devices, nodes = processes(settings.devices, os.environ)
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[settings.precision]
    try:
        return Fabric(
            accelerator=settings.accelerator,
            devices=devices or "auto",
            num_nodes=nodes,
            precision=precision,
        )
    except (ValueError, RuntimeError) as error:
        raise Problem(f"these devices are not available: {error}") from error


def processes(
    devices: int | None, environment: Mapping[str, str]
) -> tuple[int | None, int]:
    """Processes per machine (None: Fabric decides), and machines.

    torchrun and srun start the processes themselves and set environment variables.
    """
    if "LOCAL_WORLD_SIZE" in environment:  # torchrun
        started = int(environment["LOCAL_WORLD_SIZE"])
        nodes = int(environment["WORLD_SIZE"]) // started
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_NTASKS" in environment:
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
        started = int(environment["SLURM_STEP_NUM_TASKS"]) // nodes
    else:
        return devices, 1
    if devices not in (None, started):
        raise Problem(
            f"--devices {devices} does not fit: {started} processes were started on "
            f"each of {nodes} machines. Leave --devices out"
        )
    return started, nodes
