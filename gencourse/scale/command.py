"""`gencourse train`: the lessons' steps on one or many devices, for hours or days.

    gencourse train vae faces --out runs/vae --epochs 20
    gencourse train vae faces --out runs/vae --epochs 20 --resume

Lightning Fabric starts the processes and carries tensors between them. Each process
holds the whole model and takes its share of every batch; gradients are averaged before
each update, so that all copies stay equal. What is exact and what is not, and the lines
for torchrun and Slurm, stand in docs/scaling.md. May be skipped at first reading.
"""

import argparse
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any

import torch

from gencourse.scale.request import Problem, check, parser
from gencourse.scale.run import STARTER, Stop, run

NO_FABRIC = """\
this needs Lightning Fabric, which is not installed here:
  pip install "lightning-fabric>=2.5"
(In the folder of the course: pip install -c constraints.txt -e ".[scale]")"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 is success, 2 a wrong request, 1 a failed training.

    A run stopped by Ctrl-C or SIGTERM gives 130 or 143, as the shell expects.
    """
    if starter := os.environ.pop(STARTER, None):
        threading.Thread(target=_follow, args=[int(starter)], daemon=True).start()
    asked = parser().parse_args(arguments)
    try:
        check(asked)
        fabric = _fabric(asked)
    except Problem as problem:
        return _say(problem)
    patience = 0
    try:
        with Stop() as stop:
            code = run(asked, fabric, stop)
        patience = 10
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except Problem as problem:
        code, patience = _say(problem), 10
    except (OSError, RuntimeError) as error:
        # A full disk, too little memory, or another process that is gone.
        again = f"Go on from the last checkpoint in {asked.out} with --resume"
        code = _say(Problem(f"training stopped: {error}. {again}", code=1))
    finally:
        for child in getattr(fabric.strategy.launcher, "procs", []):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
            child.kill()
    # Fabric kills the whole run when a process that it started reports a failure, which
    # could cut the message of the first one short.
    return code if fabric.local_rank == 0 else 0


def _say(problem: Problem) -> int:
    if str(problem):
        print(f"gencourse train: {problem}", file=sys.stderr, flush=True)
    return problem.code


def _follow(starter: int) -> None:
    """End with the process that started this one.

    Where that is killed before the two have met, this one would wait for half an hour.
    """
    while os.getppid() == starter:
        time.sleep(1)
    os._exit(1)


def _fabric(asked: argparse.Namespace) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise Problem(NO_FABRIC) from error
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    devices, nodes = _processes(asked.devices, os.environ)
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[asked.precision]
    try:
        return Fabric(
            accelerator=asked.accelerator,
            devices=devices or "auto",
            num_nodes=nodes,
            precision=precision,
        )
    except (ValueError, RuntimeError) as error:
        raise Problem(f"these devices cannot be had: {error}") from error


def _processes(devices: int | None, environ: Any) -> tuple[int | None, int]:
    """Processes per machine (None: Fabric decides) and machines.

    Whoever started us, torchrun or srun, has said it in the environment.
    """
    if "LOCAL_WORLD_SIZE" in environ:  # torchrun
        found = int(environ["LOCAL_WORLD_SIZE"])
        nodes = int(environ["WORLD_SIZE"]) // found
    elif "SLURM_STEP_NUM_TASKS" in environ and "SLURM_NTASKS" in environ:  # srun
        nodes = int(environ.get("SLURM_STEP_NUM_NODES", 1))
        found = int(environ["SLURM_STEP_NUM_TASKS"]) // nodes
    else:
        return devices, 1
    if devices not in (None, found):
        raise Problem(
            f"--devices {devices} was asked for, but {found} processes on each of "
            f"{nodes} machines were started: leave it out"
        )
    return found, nodes
