"""Train the network that gives the referee its first guess, and store it.

python -m tools.measure.reader

It takes about eight minutes of one core. Every batch holds fresh faces of several
sizes, in color and gray, some with a little noise; the network reads their knobs.
"""

import math
import time

import safetensors.torch
import torch
from torch import Tensor

from gencourse import faces, nets, referee, store
from tools import command

SECONDS, BATCH, LEARNING_RATE = 500, 128, 2e-3


def sample_knobs(n: int) -> Tensor:
    """Knobs (n, 8): 60% uniform, 25% near the faces of the cube, 15% its corners.

    The referee has to be right at the corners too, and uniform knobs are never there.
    """
    uniform = torch.rand(n, len(faces.KNOBS)) * 2 - 1
    kind = torch.rand(n, 1)
    power = torch.where(kind < 0.6, 1.0, torch.where(kind < 0.85, 0.3, 0.0))
    return uniform.sign() * uniform.abs() ** power


def draw(knobs: Tensor) -> Tensor:
    """Faces (N, 3, 32, 32) as the network reads them."""
    large = 64 if torch.rand(()) < 0.3 else 32
    x = torch.cat(
        [
            referee.as_read(faces.render(part, size, gray=bool(torch.rand(()) < 0.35)))
            for part, size in zip(knobs.chunk(4), (16, 32, 32, large), strict=True)
        ]
    )
    sigma = 0.06 * torch.rand(len(x), 1, 1, 1) * (torch.rand(len(x), 1, 1, 1) < 0.5)
    return x + sigma * torch.randn_like(x)


def train(seconds: float) -> nets.Encoder:
    """Train for seconds of CPU time while the learning rate falls to zero."""
    torch.manual_seed(0)
    network = nets.Encoder(len(faces.KNOBS), referee.SIZE)
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99), fused=True)
    started, steps = time.thread_time(), 0
    while (spent := time.thread_time() - started) < seconds:
        rate = LEARNING_RATE * (1 + math.cos(math.pi * spent / seconds)) / 2
        optimizer.param_groups[0]["lr"] = rate
        knobs = sample_knobs(BATCH)
        loss = (network(draw(knobs)) - knobs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps % 500 == 0:
            print(f"{steps} steps, {spent:.0f} s: squared error {loss:.4f}", flush=True)
    return network


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    torch.set_num_threads(1)
    network = train(parser.parse_args().seconds)
    tensors = {name: t.half().contiguous() for name, t in network.state_dict().items()}
    content = safetensors.torch.save(tensors)
    store.write_whole(store.PRETRAINED / referee.STORED, content)


if __name__ == "__main__":
    command.run(main)
