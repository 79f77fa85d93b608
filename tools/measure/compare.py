"""Train all families on faces for the same time, measure them, and store the results.

python -m tools.measure.compare families --seconds 360 --seeds 0 1 2    lesson 05
python -m tools.measure.compare budgets --seeds 0 1 2                   lesson 05
python -m tools.measure.compare variances --seconds 150 --seeds 0 1 2   lesson 03
python -m tools.measure.compare optimal --seconds 150 --seeds 0 1 2     lesson 03
python -m tools.measure.compare remedies --seconds 60 --seeds 0 1 2 3 4  lesson 04
python -m tools.measure.compare flows --seconds 360 --seeds 0           lesson 06
python -m tools.measure.compare large --seconds 1200 --only vae_64 --seeds 0  README
python -m tools.measure.compare large --seconds 3600 --only gan_64 --seeds 0  README
python -m tools.measure.compare hour --seconds 3600 --seeds 0           lesson 05
python -m tools.measure.compare merge                                    comparison.json

Each model gets the same seconds of one core (CPU time of one thread, so that other work
on the machine takes little from it), and its learning rate falls to zero over the
second half of them. Its row is written to build/compare at once: an interrupted run
continues where it stopped, and runs with different seeds may go side by side. The flows
learn from the stored models, so train those first. `merge` turns all rows into
gencourse/pretrained/comparison.json (tables without new rows stay), and what each
variance and each remedy draws into vae_dial and collapse.safetensors beside it.
"""

import datetime
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator

import safetensors.torch
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch.optim import Optimizer

from gencourse import data, faces, losses, metrics, models, steps, store, train
from tools import command
from tools.publish.notebooks import ROOT

ROWS = ROOT / "build" / "compare"
SIZE, LATENT_DIM, N_TRAIN, N_JUDGED, S2 = 32, 10, 20_000, 300, 0.4
BATCH = 16
# R1 is weak, and lazy: once in eight steps.
GAN_MODEL = {"minibatch_std": True}
GAN_STEP = {"lr": 4e-3, "betas": (0.5, 0.99), "ema": 0.999, "r1": 0.05, "r1_every": 8}
VARIANCES, PRECISE = (0.005, 0.02, 0.1, 0.4, 1.5, 6.0), 0.02
BUDGETS = (6, 20, 60, 180)  # seconds, beside the 360 of the families
N_CLOUDS = (250, 1000, 4000, 16_000)
NEW_FACES = {
    "gan_hour": (SIZE, LATENT_DIM, models.GAN, GAN_MODEL, steps.GANStep, GAN_STEP),
    # Four times as many pixels: the image as a whole weighs as much against the KL.
    "vae_64": (64, 16, models.VAE, {"s2": 4 * S2}, steps.VAEStep, {"lr": 1e-3}),
    "gan_64": (64, 16, models.GAN, GAN_MODEL, steps.GANStep, GAN_STEP),
}
FLOW_STEPS, FLOW_BATCH, WORD_STEPS = 4000, 256, 64_000
FLOWS = ("flow", "flow_words", "flow_precise", "flow_pixels")
# Options of the model and of the step, and the steps of G for each step of D.
REMEDIES = {
    "1 : 1": ({}, {}, 1),
    "3 : 1": ({}, {}, 3),
    "3 : 1, minibatch std": ({"minibatch_std": True}, {}, 3),
    "3 : 1, spectral norm": ({"spectral_norm": True}, {}, 3),
    "3 : 1, R1": ({}, {"r1": 0.2}, 3),
}


def forever(batches) -> Iterator[torch.Tensor]:
    """Give the batches again and again, each time in a new order."""
    while True:
        yield from batches


def slow_down(step) -> Callable[[float], None]:
    """Return a function of the share of a training that is over, which sets the rates.

    The learning rates of the step stay for the first half and fall to zero over the
    second.
    """
    optimizers = [o for o in vars(step).values() if isinstance(o, Optimizer)]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]

    def set_rates(share: float) -> None:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * min(1.0, 2 * (1 - share))

    return set_rates


def train_for(step, batches: Iterator, seconds: float) -> int:
    """Train for seconds of CPU time and return the number of images seen."""
    set_rates, spent, seen = slow_down(step), 0.0, 0
    while spent < seconds:
        x = next(batches)
        set_rates(spent / seconds)
        started = time.thread_time()
        step(x)
        spent += time.thread_time() - started
        seen += len(x)
    return seen


def fit_flow(codes, n_steps, seed, words=None) -> tuple[models.Flow, float]:
    """A flow that learned to draw such codes, and the seconds that it took.

    Args:
        codes: (N, latent_dim).
        words: (N, conditions), zeros and ones. Each step tells a random part of them.
    """
    train.seed_everything(seed)
    conditions = 0 if words is None else words.shape[1]
    model = models.Flow(codes.shape[1], conditions=conditions)
    model.start_at(codes)
    step, started = steps.FlowStep(model), time.thread_time()
    set_rates = slow_down(step)
    for n in range(n_steps):
        set_rates(n / n_steps)
        rows = torch.randint(len(codes), (FLOW_BATCH,))
        batch = codes[rows]
        if conditions:
            told = torch.rand(FLOW_BATCH, conditions) < torch.rand(FLOW_BATCH, 1)
            batch = torch.cat([batch, words[rows] * told], 1)
        step(batch)
    step.use_average()
    return model, time.thread_time() - started


def measure(samples, real, x_hat=None) -> dict:
    """Return what lesson 05 lists, for samples and x_hat of shape (N, 3, 32, 32)."""
    x, knobs = real.test[:N_JUDGED], real.test.knobs[:N_JUDGED]
    judged = faces.project(samples)
    sharp = metrics.sharpness(x).mean()
    fresh = metrics.nearest_distance(x, real.train[:]).median()
    near = metrics.nearest_distance(samples, real.train[:]).median()
    drawn = faces.render(judged.knobs, samples.shape[-1])
    detail, noise = metrics.detail(samples, drawn)
    spread, _ = metrics.knob_spread(knobs, judged.knobs)
    row = {
        "fidelity": judged.distance.median().item(),
        "fidelity 90%": judged.distance.quantile(0.9).item(),
        "coverage": metrics.coverage(knobs, judged.knobs),
        "frechet": metrics.frechet_distance(knobs, judged.knobs),
        "sharpness": (metrics.sharpness(samples).mean() / sharp).item(),
        "detail": detail.mean().item(),
        "noise": noise.mean().item(),
        "spread": [round(value, 3) for value in spread.tolist()],
        "told apart": metrics.two_sample_accuracy(x, samples)[0],
        "nearest": (near / fresh).item(),
    }
    if x_hat is not None:
        error = losses.squared_error(real.test[:], x_hat).mean().item()
        row |= {"error": error, "fidelity x_hat": metrics.fidelity(x_hat[:N_JUDGED])}
    return row


def family(name: str, seconds: float, seed: int, kept: bool = True) -> list[dict]:
    """Train and measure one family; the autoencoder gives three rows.

    A model that is not kept gives a single row (the autoencoder's has the mixture).
    """
    real = data.load("faces", SIZE, train_size=N_TRAIN, test_size=1000, seed=seed)
    train.seed_everything(seed)
    rng = torch.Generator().manual_seed(seed)
    common = {"seed": seed, "seconds": seconds}
    if name == "real":  # what a perfect model gets with so few samples
        row = {"name": "real faces", "seed": seed}
        return [row | measure(real.test[N_JUDGED : 2 * N_JUDGED], real)]
    if name == "PCA":
        started = time.thread_time()
        flat = real.train[:].flatten(1).numpy()
        pca = PCA(LATENT_DIM, svd_solver="randomized", random_state=seed).fit(flat)
        spent = time.thread_time() - started
        x_hat = pca.inverse_transform(pca.transform(real.test[:].flatten(1).numpy()))
        z = torch.randn(N_JUDGED, LATENT_DIM, generator=rng).numpy()
        drawn = pca.inverse_transform(z * pca.explained_variance_**0.5)
        drawn, x_hat = (
            torch.from_numpy(a).float().view(-1, 3, SIZE, SIZE).clamp(0, 1)
            for a in (drawn, x_hat)
        )
        weights = pca.components_.size + pca.mean_.size
        row = {"name": "PCA", "seed": seed, "seconds": spent, "images": N_TRAIN}
        row |= {"parameters": weights, "parameters to draw": weights}
        return [row | measure(drawn, real, x_hat)]
    model_class, options, step_class, settings = {
        "AE": (models.Autoencoder, {}, steps.AutoencoderStep, {"betas": (0.9, 0.99)}),
        "VAE": (models.VAE, {"s2": S2}, steps.VAEStep, {}),
        "GAN": (models.GAN, GAN_MODEL, steps.GANStep, GAN_STEP),
    }[name]
    model = model_class(LATENT_DIM, SIZE, **options)
    step = step_class(model, **settings)
    seen = train_for(step, batches_of(real.train, seed), seconds)
    drawing = model.generator if name == "GAN" else model.decoder
    common |= {
        "images": seen,
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters to draw": sum(p.numel() for p in drawing.parameters()),
    }
    if name == "GAN":
        step.use_average()
    if kept and seed == 0:
        store.PRETRAINED.mkdir(exist_ok=True)
        store.save(
            model, store.PRETRAINED / f"{model_class.__name__.lower()}.safetensors"
        )
    with torch.no_grad():
        if name != "AE":
            x_hat = (
                model.decode(model.encode(real.test[:])[0]) if name == "VAE" else None
            )
            drawn = model.sample(N_JUDGED, rng)
            return [{"name": name} | common | measure(drawn, real, x_hat)]
        z = torch.cat([model.encode(x) for x in real.train[:].split(1000)])
        x_hat = model(real.test[:])
        normal = model.decode(torch.randn(N_JUDGED, LATENT_DIM, generator=rng))
        mixture = GaussianMixture(20, reg_covar=1e-4, random_state=seed)
        mixture.fit(z.double().numpy())
        codes = torch.from_numpy(mixture.sample(N_JUDGED)[0]).float()
        codes = codes[torch.randperm(N_JUDGED, generator=rng)]
        mixed = model.decode(codes)
    if not kept:
        return [{"name": "AE, mixture"} | common | measure(mixed, real, x_hat)]
    flow, _ = fit_flow(z, FLOW_STEPS, seed)
    with torch.no_grad():
        flowed = model.decode(flow.sample(N_JUDGED, rng))
    return [
        {"name": label} | common | measure(drawn, real, x_hat)
        for label, drawn in (
            ("AE, N(0, I)", normal), ("AE, mixture", mixed), ("AE, flow", flowed)
        )
    ]  # fmt: skip


def budget(name: str, _, seed: int) -> list[dict]:
    """Train and measure one family for the seconds in its name; nothing is stored."""
    name, seconds = name.split()
    return family(name, int(seconds), seed, kept=False)


def batches_of(images, seed) -> Iterator[torch.Tensor]:
    return forever(images.batches(BATCH, seed=seed, drop_last=True))


def new_faces(size: int, seed: int) -> Iterator[torch.Tensor]:
    """Give batches of faces that were never given before."""
    for n in itertools.count(1000 * (seed + 1)):
        yield from faces.render(faces.sample_knobs(1024, n), size).split(BATCH)


def on_new_faces(name: str, seconds: float, seed: int) -> list[dict]:
    """Train on new faces in each batch, at its own size; store it."""
    size, latent_dim, model_class, options, step_class, settings = NEW_FACES[name]
    real = data.load("faces", size, train_size=N_TRAIN, test_size=1000, seed=seed)
    train.seed_everything(seed)
    model = model_class(latent_dim, size, **options)
    step = step_class(model, **settings)
    seen = train_for(step, new_faces(size, seed), seconds)
    if model_class is models.GAN:
        step.use_average()
    if seed == 0:
        store.save(model, store.PRETRAINED / f"{name}.safetensors")
    drawn = model.sample(N_JUDGED, torch.Generator().manual_seed(seed))
    row = {"name": name, "seed": seed, "seconds": seconds, "images": seen}
    return [row | measure(drawn, real)]


def words_of(knobs) -> torch.Tensor:
    """Two words for each knob, low below -1/3 and high above 1/3: (N, 8) -> (N, 16)."""
    return torch.cat([knobs < -1 / 3, knobs > 1 / 3], dim=1).float()


def flow(name: str, seconds: float, seed: int) -> list[dict]:
    """Train a flow for lesson 06, store that of seed 0, and measure its samples."""
    real = data.load("faces", SIZE, train_size=N_TRAIN, test_size=1000, seed=0)
    train.seed_everything(seed)
    rng = torch.Generator().manual_seed(seed)
    decoder, seen = None, None
    if name == "flow_pixels":
        model = models.PixelFlow(size=SIZE)
        step = steps.FlowStep(model, least_t=0.1)
        seen = train_for(step, batches_of(real.train, seed), seconds)
        step.use_average()
        drawn = model.sample(N_JUDGED, rng, steps=20, heun=False)
    else:
        if name == "flow_precise":
            decoder = store.pretrained(models.VAE, "vae_precise")
        else:
            decoder = store.pretrained(models.Autoencoder)
        with torch.no_grad():
            codes = [decoder.encode(x) for x in real.train[:].split(1000)]
            if name == "flow_precise":  # draws from q(z|x), not its means
                codes = [decoder.reparameterize(*q, rng) for q in codes]
        words = words_of(real.train.knobs) if name == "flow_words" else None
        n_steps = WORD_STEPS if name == "flow_words" else FLOW_STEPS
        model, seconds = fit_flow(torch.cat(codes), n_steps, seed, words)
        seen = n_steps * FLOW_BATCH
        with torch.no_grad():
            drawn = decoder.decode(model.sample(N_JUDGED, rng))
    if seed == 0:
        store.save(model, store.PRETRAINED / f"{name}.safetensors")
    row = {"name": name, "seed": seed, "seconds": seconds, "images": seen}
    return [row | measure(drawn, real)]


class GeneratorAhead(steps.GANStep):
    """A GANStep in which G moves several times for each step of D."""

    def __init__(self, model, times: int, **options) -> None:
        super().__init__(model, **options)
        self.times = times

    def __call__(self, x):
        values = super().__call__(x)
        for _ in range(self.times - 1):
            fake = self.model.generate(self.model.prior(len(x)))
            steps.descend(self.g_optimizer, self.measure_generator(fake)["loss"])
            steps.follow(self.average, self.model.generator, self.ema, self.steps_done)
        return values


def remedy(name: str, seconds: float, seed: int) -> list[dict]:
    """Train a GAN on sixteen characters and count how often it draws each of them."""
    real = data.load("characters", SIZE, train_size=N_TRAIN, test_size=1000, seed=seed)
    train.seed_everything(seed)
    in_model, in_step, times = REMEDIES[name]
    model = models.GAN(LATENT_DIM, SIZE, **in_model)
    step = GeneratorAhead(model, times, ema=0.99, **in_step)
    seen = train_for(step, batches_of(real.train, seed), seconds)
    step.use_average()
    drawn = model.sample(N_JUDGED, torch.Generator().manual_seed(seed))
    judged = faces.project(drawn)
    away, who = torch.cdist(judged.knobs, faces.characters()).min(1)
    near = away <= 1.2  # half of the least way between two characters
    if seed == 0:
        store.write_whole(
            ROWS / f"drawn {name}.safetensors",
            safetensors.torch.save(
                {name: (255 * drawn[:16]).round().byte().contiguous()}
            ),
        )
    return [
        {
            "name": name, "seed": seed, "seconds": seconds, "images": seen,
            "counts": who[near].bincount(minlength=16).tolist(),
            "fidelity": judged.distance.median().item(),
        }
    ]  # fmt: skip


def variance(s2: float | str, seconds: float, seed: int) -> list[dict]:
    """Train and measure a VAE with another decoder variance, or with the "optimal"."""
    real = data.load("faces", SIZE, train_size=N_TRAIN, test_size=1000, seed=seed)
    train.seed_everything(seed)
    rule = s2 if s2 == "optimal" else "fixed"
    model = models.VAE(LATENT_DIM, SIZE, s2=S2 if s2 == "optimal" else s2)
    seen = train_for(
        steps.VAEStep(model, s2=rule), batches_of(real.train, seed), seconds
    )
    if seed == 0 and s2 == PRECISE:
        store.save(model, store.PRETRAINED / "vae_precise.safetensors")
    if seed == 0 and s2 in VARIANCES:
        path = ROWS / f"dial {s2}.safetensors"
        store.write_whole(path, safetensors.torch.save(dial(model, real)))
    with torch.no_grad():
        mu, logvar = model.encode(real.test[:])
        row = {"name": s2, "seed": seed, "seconds": seconds, "images": seen}
        row["s2"] = model.s2.item()
        row["kl"] = losses.kl_to_prior(mu, logvar).mean().item()
        row["active"] = metrics.active_units(mu)
        codes = torch.cat([model.encode(x)[0] for x in real.train[:].split(1000)])
        knobs = (real.train.knobs, mu, real.test.knobs)
        r2 = metrics.knob_r2(codes, *knobs, degree=3)
        row["knob r2"] = [round(value, 3) for value in r2.tolist()]
        x_hat = model.decode(model.reparameterize(mu, logvar))
        distortion = losses.squared_error(real.test[:], x_hat)  # "error" is that at mu
        row["distortion"] = distortion.mean().item()
        drawn = model.sample(N_JUDGED, torch.Generator().manual_seed(seed))
        return [row | measure(drawn, real, model.decode(mu))]


@torch.no_grad()
def dial(model: models.VAE, real) -> dict[str, torch.Tensor]:
    """Return what lesson 03 shows of a VAE at one position of its dial.

    Returns:
        "x_hat" and "samples", bytes (3 and 8, 3, S, S); "mu" and "logvar" (150, 2), the
        clouds of test faces in the two dimensions with the most KL; "kl" (latent_dim,),
        nats per dimension; "n" and "information" (4,), the nats that z carries about
        which of n faces it came from.
    """
    rng = torch.Generator().manual_seed(0)
    drawn = [model.decode(model.encode(real.test[:3])[0]), model.sample(8, rng)]
    x_hat, samples = ((255 * x).round().to(torch.uint8).contiguous() for x in drawn)
    mu, logvar = model.encode(real.test[:])
    kl = losses.kl_per_dimension(mu, logvar).mean(0)
    used = kl.topk(2).indices
    clouds = {"mu": mu[:150, used], "logvar": logvar[:150, used]}

    knobs = faces.sample_knobs(max(N_CLOUDS), 1)
    codes = [model.encode(faces.render(part, SIZE)) for part in knobs.split(1000)]
    mu, logvar = (torch.cat(parts) for parts in zip(*codes, strict=True))
    information = []
    for n in N_CLOUDS:
        own = torch.randint(n, (500,), generator=rng)
        z = model.reparameterize(mu[own], logvar[own], rng)
        parts = z[:, None].expand(-1, n, -1).split(20)  # bounds the memory
        log_q = torch.cat([losses.log_normal(p, mu[:n], logvar[:n]) for p in parts])
        log_own = log_q.gather(1, own[:, None]).squeeze(1)
        log_all = torch.logsumexp(log_q, 1) - math.log(n)
        information.append((log_own - log_all).mean())
    counts = {"n": torch.tensor(N_CLOUDS), "information": torch.stack(information)}
    return {"x_hat": x_hat, "samples": samples, "kl": kl} | clouds | counts


TABLES = {
    "families": (("real", "PCA", "AE", "VAE", "GAN"), family),
    "budgets": ([f"{n} {s}" for s in BUDGETS for n in ("AE", "VAE", "GAN")], budget),
    "variances": (VARIANCES, variance),
    "optimal": (("optimal",), variance),
    "remedies": (REMEDIES, remedy),
    "flows": (FLOWS, flow),
    "large": (("vae_64", "gan_64"), on_new_faces),
    "hour": (("gan_hour",), on_new_faces),
}


def merge() -> None:
    """Write all rows, with the commands that made them, to comparison.json."""
    clouds = [ROWS / f"dial {s2}.safetensors" for s2 in VARIANCES]
    if all(path.exists() for path in clouds):
        dials = [store.read(path)[0] for path in clouds]
        stacked = {name: torch.stack([d[name] for d in dials]) for name in dials[0]}
        stacked["s2"] = torch.tensor(VARIANCES)
        path = store.PRETRAINED / "vae_dial.safetensors"
        store.write_whole(path, safetensors.torch.save(stacked))
    drawn = [ROWS / f"drawn {name}.safetensors" for name in REMEDIES]
    if all(path.exists() for path in drawn):
        images = {k: v for path in drawn for k, v in store.read(path)[0].items()}
        path = store.PRETRAINED / "collapse.safetensors"
        store.write_whole(path, safetensors.torch.save(images))
    tables = {name: [] for name in TABLES}
    for path in sorted(ROWS.glob("*.json")):
        tables[path.name.split(" ")[0]] += json.loads(path.read_text())
    stored = store.results()
    tables = {name: rows or stored.get(name, []) for name, rows in tables.items()}
    for rows in tables.values():
        for row in rows:
            for key, value in row.items():
                row[key] = float(f"{value:.4g}") if isinstance(value, float) else value
    settings = {"size": SIZE, "latent_dim": LATENT_DIM, "train": N_TRAIN}
    settings |= {"judged": N_JUDGED, "s2": S2, "torch": torch.__version__.split("+")[0]}
    commands = [line for line in __doc__.splitlines() if line.startswith("python ")]
    content = {"date": datetime.date.today().isoformat(), "commands": commands}
    content |= {"settings": settings} | tables
    path = store.PRETRAINED / "comparison.json"
    path.write_text(one_row_per_line(content), encoding="utf-8")
    print(path.relative_to(ROOT), {name: len(rows) for name, rows in tables.items()})


def one_row_per_line(content: dict) -> str:
    """Return JSON in which each row of a table is a line, so that changes show."""
    parts = []
    for name, value in content.items():
        text = json.dumps(value)
        if name in TABLES:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        parts.append(f' "{name}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("what", choices=(*TABLES, "merge"))
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="some of the names")
    args = parser.parse_args()
    if args.what == "merge":
        return merge()
    torch.set_num_threads(1)
    ROWS.mkdir(parents=True, exist_ok=True)
    all_names, run = TABLES[args.what]
    for seed in args.seeds:
        for name in all_names:
            path = ROWS / f"{args.what} {name} {seed}.json"
            if path.exists() or (args.only and str(name) not in args.only):
                continue
            rows = run(name, args.seconds, seed)
            path.write_text(json.dumps(rows))
            print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    command.run(main)
