"""Plausible wrong answers to each exercise, and words of the hint that each must get.

Written as source, so that each is read as a learner would type it: an expression for a
value, otherwise the body of a function `answer` with the arguments of the starter.
"""

ARGUMENTS = {
    "1.2": "n_values, levels, log10_faces",
    "1.3": "z_a, z_b, z_c, z_d, n",
    "1.4": "a, b",
    "1.5": "axes, variances",
    "1.6": "axes, knobs",
    "2.2": "x, z, W, b",
    "2.3": "x, x_hat",
    "2.4": "axes, x",
    "2.5": "codes, n",
    "2.6": "model, optimizer, x, sigma",
    "3.2": "mu, logvar",
    "3.3": "mu, logvar",
    "3.4": "x, logits, mu, logvar",
    "3.5": "axes, rows",
    "3.6": "log_w",
    "4.2": "real_logits, fake_logits",
    "4.3": "G, D, optimizer, x, z",
    "4.4": "features",
    "4.5": "axes, theta",
    "5.2": "real, fake, k",
    "5.3": "images, training",
    "5.4": "real, first, second",
    "5.5": "axes, rows",
    "6.2": "v, z_t, t",
    "6.3": "z, i, alpha_bar, eps",
    "6.4": "net, z_t, t, words, w",
    "6.5": "axes, v, z, counts",
}

SLACK = """slack = 0
while {} + n_values * math.{} / levels) < 0:
    slack += 1
return slack"""

STEPS = """of = []
for n in counts:
    x = z
    for i in range(n, 0, -1):
        x = x - v(x, {}) / n
    of.append(x.std(){})
axes.plot(counts, of)
axes.set(xlabel="steps", ylabel="deviation")
return "Few steps shrink what comes out."
"""

LABELS = '\naxes.set(xlabel="x", ylabel="y")\nreturn "It says more than it seems to."'
JSD = (
    """
grid = torch.linspace(-12, 22, 3401, dtype=torch.float64)
dx = grid[1] - grid[0]
log_p = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
values = []
for t in theta.tolist():
    log_q = torch.distributions.Normal(t, 1.0).log_prob(grid)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    p, q = log_p.exp(), log_q.exp()
    values.append({})
axes.plot(theta, values)"""
    + LABELS
)
SHIFT = (
    """
y = [{} for s in range(9)]
axes.plot(range(9), y)"""
    + LABELS
)
STEP = """
fake = G(z).detach()
loss = losses.discriminator_loss(D(x), D(fake)).mean()
optimizer.zero_grad()
loss.backward()
optimizer.step()
return loss"""
FREEZE = (
    """
m = range(3, 9)
d = []
for k in m:
    frozen = knobs.clone()
    {}
    d.append(metrics.two_nn_dimension({})[0])
axes.plot({})"""
    + LABELS
)
LAST = "frozen[:, k:] = 0"
IMAGES = "faces.render(frozen, 16)"
DENOISE = """
x_hat = model(x + sigma * torch.randn_like(x))
loss = losses.squared_error(x, x_hat).mean()
optimizer.zero_grad()
loss.backward()
optimizer.step()
return loss"""
SHEET = """
s = torch.linspace(0, 1, n)[:, None, None]
t = s.transpose(0, 1)
return {}"""
FOUR = "(1 - s) * ((1 - t) * z_a + t * z_b) + s * ((1 - t) * z_c + t * z_d)"
PAIRS = (
    """
a, b = rows[:-1], rows[1:]
kl = torch.tensor([[r["kl"] for r in rows] for rows in (a, b)], dtype=torch.float64)
error = torch.tensor([[r["distortion"] for r in rows] for rows in (a, b)], dtype=torch.float64)
price = (error[0] - error[1]) / (kl[1] - kl[0])
axes.plot({})"""
    + LABELS
)
RUNS = 'axes.scatter([r["{}"] for r in rows], [r["{}"] for r in rows])' + LABELS
COVER = """
radius = torch.cdist(real, real).sort(1).values[:, k]
between = torch.cdist(real, fake)
"""

WRONG = {
    "1.1": [
        ("0.5", "two or three dimensions"),
        ("0.1", "too large"),
        ("0.001", "too small"),
        ("1.6", "between 0 and 1"),
        ("'0.02 or so'", "Expected"),
        ("float('nan')", "Expected one number"),
    ],
    "1.2": [
        (SLACK.format("log10_faces", "log10((2 * slack + 1)"), "return the last"),
        (SLACK.format("log10_faces", "log10((slack + 2)"), "both directions"),
        (SLACK.format("log10_faces", "log10(2 * (slack + 1)"), "return the last"),
        (SLACK.format("0", "log10((2 * slack + 3)"), "single face"),
        (SLACK.format("-log10_faces", "log10((2 * slack + 3)"), "not less likely"),
        (SLACK.format("log10_faces", "log((2 * slack + 3)"), "natural logarithm"),
        ("return 30", "bound is 10^"),
        ("return 2", "still 10^"),
        ("return 9 if n_values == 100 else 1", "bound is 10^"),
        ("return -1", "0, 1, 2"),
        ("return (levels * 10 ** (-log10_faces / n_values) - 1) / 2", "0, 1, 2"),
        ("return log10_faces + n_values * math.log10(21 / levels)", "0, 1, 2"),
        ("return [9, 0, 127]", "one number"),
    ],
    "1.3": [
        (SHEET.format("(" + FOUR + ").transpose(0, 1)"), "Rows and columns"),
        (SHEET.format("(" + FOUR + ").flip(0)"), "upside down"),
        (SHEET.format("(" + FOUR + ").flip(1)"), "Left and right"),
        (SHEET.format("(" + FOUR + ").flatten(0, 1)"), "Expected the shape"),
        (SHEET.replace("linspace(0, 1, n)", "arange(n)").format(FOUR), "largest difference"),
        (SHEET.replace("torch.linspace(0, 1, n)", "(torch.arange(n) / n)").format(FOUR), "last corner"),
        (SHEET.format("z_a + s * (z_c - z_a) + t * (z_b - z_a)"), "z_d is not used"),
        (SHEET.format("2 * (" + FOUR + ")"), "add up to 1"),
        (SHEET.format("(z_a + s * (z_c - z_a) + z_a + t * (z_b - z_a)) / 2"), "two paths"),
        (SHEET.format("torch.lerp(z_a, z_b, t).expand(n, n, 8)"), "blend downwards"),
        (SHEET.format("z_a"), "Expected the shape"),
    ],
    "1.4": [
        ("return a + b", "largest|lies|not halved|Halfway"),
        ("return a.int() + b.int()", "not halved"),
        ("return (a.int() + b.int()).clamp(max=255).to(torch.uint8)", "clamped: it is not"),
        ("return ((a.int() + b.int()).clamp(max=255) // 2).to(torch.uint8)", "over 127"),
        ("return a // 2 + b // 2", "254"),
        ("return (a.float() + b.float()) / 2", "no bytes"),
        ("return (a.float() + b.float()) / 2 / 255", "from 0 to 1"),
        ("return a", "Halfway between"),
        ("return ((a.int() + b.int()) // 2).to(torch.uint8).sum(0)", "Expected the shape"),
        ("return ((a.int() + b.int()) // 2).tolist()", "no bytes"),
        ("return torch.maximum(a, b)", "Halfway between"),
    ],
    "1.5": [
        ("axes.plot(range(1, 601), variances)" + LABELS, "own variance"),
        ("axes.plot(range(1, 601), variances / variances.sum())" + LABELS, "own share"),
        ("axes.plot(range(1, 601), variances.cumsum(0))" + LABELS, "Divide"),
        ("v = variances.sqrt()\naxes.plot(range(1, 601), v.cumsum(0) / v.sum())" + LABELS, "deviations do not"),
        ("axes.plot(variances.cumsum(0) / variances.sum())" + LABELS, "k = 1"),
        ("axes.plot(range(1, 601), 1 - variances.cumsum(0) / variances.sum())" + LABELS, "lost"),
        ("axes.plot(range(1, 601), variances.cumsum(0) / variances.sum())\nreturn 'It rises fast, but not fast enough.'", "Label"),
        ("axes.plot(range(1, 601), variances.cumsum(0) / variances.sum())\naxes.set(xlabel='k', ylabel='share')\nreturn 'rises'", "sentence"),
        ("return 'A fine sentence without any curve'", "no curve"),
        ("axes.stairs(variances, numpy.arange(0.5, 601))" + LABELS, "own variance"),
        ("axes.fill_between(range(1, 601), 1 - variances.cumsum(0) / variances.sum())" + LABELS, "lost"),
    ],
    "1.6": [
        (FREEZE.format(LAST, IMAGES, "[8 - k for k in m], d"), "that *move*"),
        (FREEZE.format(LAST, IMAGES, "d, m"), "swapped"),
        (FREEZE.format(LAST, "frozen", "m, d"), "dimension of the knobs"),
        (FREEZE.format("frozen[:, : 8 - k] = 0", IMAGES, "m, d"), "first knobs"),
        (FREEZE.format(LAST, "faces.render(knobs, 16)", "m, d"), "does not change"),
        (FREEZE.replace("knobs.clone()", "knobs").format(LAST, IMAGES, "m, d"), "freeze a copy"),
        (FREEZE.format("frozen[:, k:] = 1", IMAGES, "m, d"), "heights are not"),
        (FREEZE.replace("range(3, 9)", "range(3, 8)").format(LAST, IMAGES, "m, d"), "6 points"),
    ],
    "2.1": [
        ("0.5", "best"),
        ("2", "(w - 3)^2 / 2"),
        ("0.1", "converges"),
        ("3", "runs away"),
        ("-1", "positive"),
    ],
    "2.2": [
        ("return 2 * (x - z @ W - b) @ W.T", "sign"),
        ("return (z @ W + b - x) @ W.T", "factor 2"),
        ("return (x - z @ W - b) @ W.T", "factor 2 is missing and"),
        ("return 2 * (z @ W + b - x)", "gradient in x_hat"),
        ("return 2 * (z @ W + b - x) @ W", "cannot be multiplied"),
        ("return 2 * (z @ W - x) @ W.T", "b is missing"),
        ("return 2 * (b - x) @ W.T", "z itself"),
        ("return z.T @ (2 * (z @ W + b - x))", "in W, not in z"),
        ("return (2 * (z @ W + b - x) @ W.T).sum(0)", "summed over the images"),
        ("return (2 * (z @ W + b - x) @ W.T) / x.numel()", "batch and the pixels"),
        ("return (2 * (z @ W + b - x) @ W.T) / x.shape[1]", "*mean* over an image"),
        ("return (2 * (z @ W + b - x) @ W.T) / len(x)", "mean over the batch"),
        ("return (z @ W + b - x).square().sum(1)", "not its gradient"),
        ("return 3 * (z @ W + b - x) @ W.T", "1.5 times"),
    ],
    "2.3": [
        ("return F.mse_loss(x_hat, x, reduction='sum')", "summed over the batch"),
        ("return F.mse_loss(x_hat, x, reduction='none').flatten(1).mean(1)", "still the mean"),
        ("return F.mse_loss(x_hat, x, reduction='sum') / len(x)", "mean over the batch"),
        ("return (x - x_hat).square().sum(0)", "values of each image"),
        ("return (x - x_hat).flatten(1).norm(dim=1)", "square root"),
        ("return (x - x_hat).abs().flatten(1).sum(1)", "not of its square"),
        ("return (x - x_hat).square().sum(1)", "channels only"),
        ("return -(x - x_hat).square().flatten(1).sum(1)", "-1 times"),
        ("return (x - x_hat).square().flatten(1).sum(1, keepdim=True)", "their shape"),
    ],
    "2.4": [
        (SHIFT.format("losses.squared_error(x, torch.roll(x, s, dims=2)).mean()"), "up and down"),
        (SHIFT.format("F.mse_loss(x, torch.roll(x, s, dims=3))"), "mean per pixel"),
        (SHIFT.format("losses.squared_error(x, torch.roll(x, s, dims=3)).sum()"), "sum over all faces"),
        (SHIFT.format("losses.squared_error(x, torch.roll(x, s, dims=3)).sqrt().mean()"), "root"),
        (SHIFT.format("(x - torch.roll(x, s, dims=3)).abs().flatten(1).sum(1).mean()"), "absolute"),
        (SHIFT.replace("range(9)", "range(1, 9)").format("losses.squared_error(x, torch.roll(x, s, dims=3)).mean()"), "begins at"),
        (SHIFT.format("losses.squared_error(x, torch.roll(x, s, dims=0)).mean()"), "heights are not"),
        (SHIFT.replace("range(9)", "range(5)").format("losses.squared_error(x, torch.roll(x, s, dims=3)).mean()"), "9 points"),
    ],
    "2.5": [
        ("return codes.mean(0) + codes.std(0) * torch.randn(n, 3)", "not correlated"),
        ("return codes.mean(0) + torch.randn(n, 3) @ codes.T.cov().T", "Cholesky"),
        ("return torch.randn(n, 3) @ torch.linalg.cholesky(codes.T.cov()).T", "around 0"),
        ("return codes.mean(0) + torch.randn(n, 3)", "N(0, I)"),
        ("return torch.randn(n, 3)", "around 0"),
        ("return codes.mean(0) + codes.var(0) * torch.randn(n, 3)", "used as a standard"),
        ("return codes.mean(0) + torch.randn(n, 3) @ torch.linalg.cholesky(codes.T.cov())", "wrong side"),
        ("return codes.mean(0).expand(n, -1)", "noise of its own"),
        ("return codes.mean(0) + codes.std(0) * torch.randn(n, 1)", "covariances are not"),
        ("return torch.distributions.MultivariateNormal(codes.mean(0), codes.T.cov()).sample((10000,))", "(7, 2)"),
        ("return codes[torch.randint(len(codes), (n,))]", "codes themselves"),
        ("return codes.median(0).values + torch.randn(n, 3) @ torch.linalg.cholesky(codes.T.cov()).T", "means of the draws"),
        ("return torch.distributions.MultivariateNormal(codes.mean(0), codes.T.cov()).sample((n,)).T", "one row for each draw"),
        ("v, V = torch.linalg.eigh(codes.T.cov())\nreturn codes.mean(0) + torch.randn(n, 3) @ (V * v).T", "Cholesky"),
        ("return codes[torch.randint(len(codes), (n,))] + 1e-4 * torch.randn(n, 3)", "codes themselves"),
        ("u = (torch.rand(n, 3) - 0.5) * 12**0.5\nreturn codes.mean(0) + u @ torch.linalg.cholesky(codes.T.cov()).T", "not Gaussian"),
        ("return torch.distributions.MultivariateNormal(codes.mean(0), codes.T.cov()).sample()", "Expected n draws"),
        ("return codes.mean(0) + 2 * torch.randn(n, 3) @ torch.linalg.cholesky(codes.T.cov()).T", "variances"),
        ("torch.manual_seed(1)\nreturn torch.distributions.MultivariateNormal(codes.mean(0), codes.T.cov()).sample((n,))", "Two calls"),
        ("numpy.random.seed(1)\nreturn numpy.random.multivariate_normal(codes.mean(0), codes.T.cov(), n)", "Two calls"),
    ],
    "2.6": [
        (DENOISE.replace("sigma * torch.randn_like(x)", "0"), "where is the noise"),
        (DENOISE.replace("randn_like(x)", "randn(x.shape[1])"), "same noise"),
        (DENOISE.replace("randn_like", "rand_like"), "not 0"),
        (DENOISE.replace("torch.randn_like(x)", "12**0.5 * (torch.rand_like(x) - 0.5)"), "not Gaussian"),
        (DENOISE.replace("sigma *", "sigma**2 *"), "deviation of 0.09"),
        (DENOISE.replace("x_hat = model(x +", "x = x +").replace("randn_like(x))", "randn_like(x)\nx_hat = model(x)"), "*noisy* images"),
        (DENOISE.replace("optimizer.zero_grad()\n", ""), "zero_grad"),
        (DENOISE.replace("optimizer.step()\n", ""), "not changed"),
        (DENOISE.replace("losses", "-losses"), "uphill"),
        (DENOISE.replace(".mean()", ".sum()"), "sum over the batch"),
        (DENOISE.replace("losses.squared_error(x, x_hat).mean()", "F.mse_loss(x_hat, x)"), "sum each image"),
        (DENOISE.replace("return loss", "return -loss"), "loss that is returned"),
        (DENOISE.replace("return loss", ""), "return"),
        (DENOISE.replace("model(x + sigma * torch.randn_like(x))", "torch.stack([model(y) for y in x + sigma * torch.randn_like(x)])"), "call it once"),
    ],
    "3.1": [
        ("10", "half is missing"),
        ("0.5", "one dimension"),
        ("0", "sigma = 1"),
        ("-5", "never negative"),
        ("7.21", "bits"),
        ("20", "not it"),
    ],
    "3.2": [
        ("return mu + (2 * logvar).exp() * torch.randn_like(mu)", "squared twice"),
        ("return torch.distributions.Normal(mu, (logvar / 2).exp()).sample()", "no gradient"),
        ("return mu + (logvar / 2).exp() * torch.randn(mu.shape[1])", "share one eps"),
        ("return mu + (logvar / 2).exp() * torch.randn(len(mu), 1)", "All dimensions"),
        ("return mu + (logvar / 2).exp() * torch.randn(10000, 2)", "size of tensor|shape"),
        ("z = mu + (logvar / 2).exp() * torch.randn_like(mu)\nz.sum().backward()\nreturn z", "backward()|does not require grad"),
        ("return mu", "no noise"),
        ("return torch.normal(mu, (logvar / 2).exp())", "torch.normal passes none on"),
        ("return mu + (logvar / 2).exp() * torch.randn_like(mu).abs()", "means of the draws"),
        ("torch.manual_seed(0)\nreturn mu + (logvar / 2).exp() * torch.randn_like(mu)", "Two calls"),
        ("return mu + (logvar / 2).exp() * torch.rand_like(mu)", "means of the draws"),
        ("return mu + torch.randn_like(mu)", "not used"),
        ("return mu + 0.5 * logvar.exp() * torch.randn_like(mu)", "exponent"),
        ("return mu + (-logvar / 2).exp() * torch.randn_like(mu)", "sign"),
        ("return mu.detach() + (logvar / 2).exp() * torch.randn_like(mu)", "flows to mu"),
        ("return mu + (logvar / 2).exp().detach() * torch.randn_like(mu)", "flows to logvar"),
        ("u = (torch.rand_like(mu) - 0.5) * 12**0.5\nreturn mu + (logvar / 2).exp() * u", "not Gaussian"),
        ("numpy.random.seed(1)\nreturn mu + (logvar / 2).exp() * torch.tensor(numpy.random.randn(*mu.shape))", "Two calls"),
        ("random.seed(1)\nreturn mu + (logvar / 2).exp() * torch.tensor([[random.gauss(0, 1) for _ in row] for row in mu])", "Two calls"),
    ],
    "3.3": [
        ("return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()", "summed over the batch"),
        ("return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).mean(1)", "mean over the dimensions"),
        ("return 0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)", "sign is flipped"),
        ("return (mu**2 + logvar.exp() - 1 - logvar).sum(1)", "half in front"),
        ("return 0.5 * (mu**2 + (2 * logvar).exp() - 1 - 2 * logvar).sum(1)", "log sigma"),
        ("return 0.5 * (mu**2 + (logvar / 2).exp() - 1 - logvar).sum(1)", "deviation"),
        ("return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(0)", "kept the dimensions"),
        ("return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)", "per dimension"),
        ("return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).mean()", "averaged over everything"),
        ("return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()", "averaged over the batch"),
        ("return 0.5 * (mu**2 + logvar.exp() - logvar).sum(1)", "-1 is missing"),
        ("return 0.5 * (mu**2 + logvar.exp() - 1 + logvar).sum(1)", "logarithm"),
        ("return 0.5 * (mu + logvar.exp() - 1 - logvar).sum(1)", "squared"),
        ("return 0.5 * ((mu**2 + logvar.exp() - logvar).sum(1) - 1)", "every dimension"),
        ("return 0.5 * (logvar.exp() - 1 - logvar).sum(1)", "mu is missing"),
        ("return 0.5 * ((1 + mu**2) / logvar.exp() - 1 + logvar).sum(1)", "swapped"),
        ("return (-0.5 * (1 + logvar - mu**2 - logvar.exp())).sum(1) * 3", "3 times"),
        ("return 0.5 * (mu**2 + logvar.exp() - logvar).sum(1, keepdim=True) - 2", "their shape"),
        ("return 0.5 * (mu**2 + logvar.exp() - logvar).sum(1) - 2", "largest difference"),
    ],
    "3.4": [
        ("r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum')\nreturn r - losses.kl_to_prior(mu, logvar).sum()", "subtracted"),
        ("r = F.binary_cross_entropy_with_logits(logits, x)\nreturn r + losses.kl_to_prior(mu, logvar).mean()", "summed now, but the reconstruction"),
        ("r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum') / len(x)\nreturn r + losses.kl_per_dimension(mu, logvar).mean()", "KL is still a mean"),
        ("r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum')\nreturn r + losses.kl_to_prior(mu, logvar).mean()", "averaged over the batch"),
        ("r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum') / len(x)\nreturn r + losses.kl_to_prior(mu, logvar).sum()", "summed over the batch"),
        ("r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum')\nreturn r + 2 * losses.kl_to_prior(mu, logvar).sum()", "half"),
        ("return losses.kl_to_prior(mu, logvar).mean()", "reconstruction is gone"),
        ("return losses.bernoulli_nll(x, logits), losses.kl_to_prior(mu, logvar)", "Add the two"),
        ("return losses.bernoulli_nll(x, logits) + losses.kl_to_prior(mu, logvar)[:, None]", "(5, 5)"),
        ("r = F.binary_cross_entropy_with_logits(logits, x)\nreturn r + 784 / 200 * losses.kl_per_dimension(mu, logvar).mean()", "upside down"),
        ("return F.binary_cross_entropy_with_logits(logits, x)", "KL is gone"),
        ("r = F.binary_cross_entropy_with_logits(logits, x)\nreturn losses.kl_to_prior(mu, logvar).mean() - r", "sign is flipped"),
        ("r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum')\nreturn r + losses.kl_per_dimension(mu, logvar).mean()", "the KL a mean"),
        ("r = F.binary_cross_entropy_with_logits(logits, x)\nreturn r + losses.kl_to_prior(mu, logvar).sum()", "summed over everything"),
        ("return losses.bernoulli_nll(x, logits) + 0.5 * (mu**2 + logvar**2 / 2).sum(1)", "parts do not fit"),
        ("return losses.squared_error(x, logits.sigmoid()) + losses.kl_to_prior(mu, logvar)", "cross-entropy any more"),
        ("r = losses.bernoulli_nll(x, logits)\nreturn r + 0.5 * (mu**2 + logvar.exp() - logvar).sum(1)", "-1 of every dimension"),
        ("r = F.binary_cross_entropy_with_logits(logits, x)\nreturn r + 0.5 * (mu**2 + logvar.exp() - logvar).mean() * 200 / 784", "yours is 100"),
        ("return losses.bernoulli_nll(x, logits).mean().item() + losses.kl_to_prior(mu, logvar).mean()", "flows to logits"),
        ("return (losses.bernoulli_nll(x, logits) + losses.kl_to_prior(mu, logvar)).tolist()", "no gradient"),
        ("return -losses.bernoulli_nll(x, logits) - losses.kl_to_prior(mu, logvar)", "sign is flipped"),
    ],
    "3.5": [
        (PAIRS.format("kl.mean(0), -price"), "sign is flipped"),
        (PAIRS.format("kl.mean(0), 1 / price"), "upside down"),
        (PAIRS.format("kl[0], price"), "mean of their KL"),
        (PAIRS.format("kl[1], price"), "in the middle"),
        (PAIRS.format("price, kl.mean(0)"), "swapped"),
        (PAIRS.format("kl.mean(0), (error[0] - error[1]).abs()"), "divide it"),
        (RUNS.format("kl", "distortion"), "error itself"),
        ('axes.plot([r["kl"] for r in rows], [r["distortion"] / r["kl"] for r in rows])' + LABELS, "changes of both"),
        (PAIRS.replace("distortion", "error").format("kl.mean(0), price"), "at z = mu"),
        (PAIRS.format("price"), "point is missing|heights are not"),
    ],
    "3.6": [
        ("return log_w.mean(0)", "mean of the logarithms"),
        ("return torch.logsumexp(log_w, 0)", "log K is missing"),
        ("return log_w.exp().mean(0).log()", "underflow"),
        ("return torch.logsumexp(log_w, 1) - math.log(log_w.shape[1])", "over the images"),
        ("return log_w.max(0).values", "largest"),
        ("return torch.logsumexp(log_w, 0) + math.log(len(log_w))", "wrong sign"),
        ("return (torch.logsumexp(log_w, 0) - math.log(len(log_w))).mean()", "batch"),
        ("return log_w.clamp(-80, 80).exp().mean(0).log()", "difference"),
        ("m = log_w.max()\nreturn m + (log_w - m).exp().mean(0).log()", "underflow"),
        ("m = log_w[0]\nreturn m + (log_w - m).exp().mean(0).log()", "flow:"),
        ("m = log_w.mean(0)\nreturn m + (log_w - m).exp().mean(0).log()", "flow:"),
        ("m = log_w.median(0).values\nreturn m + (log_w - m).exp().mean(0).log()", "overflow"),
        ("m = log_w.quantile(0.75, 0)\nreturn m + (log_w - m).double().exp().mean(0).log()", "overflow"),
        ("m = log_w.min(0).values\nreturn m + (log_w - m).double().exp().mean(0).log()", "overflow"),
    ],
    "4.1": [
        ("7", "10% a step"),
        ("70", "square"),
        ("20", "too few"),
        ("1000", "too many"),
    ],
    "4.2": [
        ("return F.softplus(real_logits) + F.softplus(-fake_logits)", "swapped"),
        ("return -F.softplus(-real_logits) - F.softplus(fake_logits)", "sign"),
        ("return F.softplus(-real_logits)", "fakes are missing"),
        ("return F.softplus(-real_logits) + F.softplus(-fake_logits)", "generator"),
        ("return (F.softplus(-real_logits) + F.softplus(fake_logits)).mean()", "mean over the pairs"),
        ("return (F.softplus(-real_logits) + F.softplus(fake_logits)) / 2", "half"),
        ("D = torch.sigmoid\nreturn -D(real_logits).log() - (1 - D(fake_logits)).log()", "small logits"),
        ("return -real_logits.log() - (1 - fake_logits).log()", "of the logits"),
        ("D = torch.sigmoid\nreturn -(D(real_logits) + 1e-8).log() - (1 - D(fake_logits) + 1e-8).log()", "clamped"),
        ("r = F.softplus(-real_logits)\nb = fake_logits\nreturn r + torch.where(b > 20, b, torch.log1p(b.exp()))", "gradient"),
        ("a, b = -real_logits, fake_logits\nf = lambda v: torch.where(v > 20, v, torch.log1p(v.exp()))\nreturn f(a) + f(b)", "gradient"),
        ("return (F.softplus(-real_logits) + F.softplus(fake_logits)).detach()", "no gradient"),
        ("return (F.softplus(-real_logits) + F.softplus(fake_logits)).tolist()", "no gradient"),
        ("return F.softplus(-real_logits).detach() + F.softplus(fake_logits)", "gradient flows to real_logits"),
        ("return (F.softplus(-real_logits) + F.softplus(fake_logits)).detach() + 0 * (real_logits + fake_logits)", "gradient is 0"),
    ],
    "4.3": [
        (STEP.replace(".detach()", ""), "detach"),
        (STEP.replace("optimizer.zero_grad()\n", ""), "zero_grad"),
        (STEP.replace("optimizer.step()\n", ""), "not changed"),
        (STEP.replace("losses", "-losses"), "uphill"),
        (STEP.replace("(D(x), D(fake))", "(D(fake), D(x))"), "swapped"),
        (STEP.replace(".mean()", ".sum()"), "sum over the batch"),
        (STEP.replace("zero_grad()\nloss.backward()", "zero_grad()\n"), "not changed"),
        (STEP.replace("G(z)", "G(torch.randn_like(z))"), "weights of D"),
        (STEP.replace("return loss", ""), "return"),
        (STEP.replace("losses.discriminator_loss(D(x), D(fake))", "F.softplus(-D(x))"), "real images"),
        (STEP.replace("losses.discriminator_loss(D(x), D(fake))", "F.softplus(D(fake))"), "only the fakes"),
        (STEP.replace("return loss", "return -loss"), "loss that is returned"),
        (STEP.replace("optimizer.step()", "optimizer.step()\nG.weight.data += 1"), "G was changed"),
        ("G.requires_grad_(False)" + STEP.replace(".detach()", ""), "frozen"),
        (STEP.replace(".detach()", "").replace("return loss", "G.zero_grad()\nreturn loss"), "Wiping"),
        (STEP.replace("optimizer.step()", "for p in D.parameters():\n    p.data -= 0.1 * p.grad"), "0 steps"),
        ("D.eval()" + STEP, "eval()"),
        ("D.requires_grad_(False)" + STEP, "does not require grad"),
        (STEP.replace("optimizer.zero_grad()\nloss.backward()", ""), "Only the old"),
        ("loss = losses.discriminator_loss(D(x), D(G(z).detach())).mean()\nloss.backward()\noptimizer.zero_grad()\noptimizer.step()\nreturn loss", "not changed"),
    ],
    "4.4": [
        ("return torch.nn.BatchNorm1d(features, momentum=0.8)", "weight of the new batch"),
        ("return torch.nn.BatchNorm1d(features)", "default"),
        ("return torch.nn.BatchNorm1d(features, 0.8, 0.2)", "eps is still"),
        ("return torch.nn.BatchNorm1d(features, momentum=0.5)", "weight 0.50"),
        ("return torch.nn.LayerNorm(features)", "running mean"),
        ("return torch.nn.BatchNorm1d(features, 1e-3, 0.2)", "1e-5"),
        ("return torch.nn.BatchNorm1d(features, 1e-4, 0.2)", "1e-5"),
        ("return torch.nn.LSTM(features, features)", "Expected numbers"),
        ("return torch.nn.BatchNorm1d(6, momentum=0.2)", "running_mean should contain"),
        ("return 0.2", "Expected a layer"),
        ("return torch.nn.BatchNorm1d(features, 2e-5, 0.2)", "1e-5"),
        ("return torch.nn.BatchNorm1d(features, 1e-6, 0.2)", "1e-5"),
        ("return torch.nn.BatchNorm1d(features, momentum=0.2, affine=False)", "affine"),
        ("return torch.nn.Sequential(torch.nn.BatchNorm1d(features, momentum=0.2), torch.nn.ReLU())", "largest difference"),
        ("return torch.nn.Sequential(torch.nn.BatchNorm1d(features, momentum=0.2), torch.nn.Dropout(0.5))", "largest difference"),
        ("return torch.nn.BatchNorm1d(features, momentum=1 / 0.8 - 1)", "weight 0.25"),
    ],
    "4.5": [
        ("axes.plot(theta, theta**2 / 2)" + LABELS, "KL divergence"),
        (JSD.format("((p * (log_p - log_m) + q * (log_q - log_m)).sum() * dx)"), "twice"),
        (JSD.format("0.5 * ((p * (log_p - log_m) + q * (log_q - log_m)).sum() * dx) / math.log(2)"), "bits"),
        (JSD.format("-math.log(4) + ((p * (log_p - log_m) + q * (log_q - log_m)).sum() * dx)"), "V of the game"),
        (JSD.format("(0.5 * ((p * (log_p - log_m) + q * (log_q - log_m)).sum() * dx)).clamp(min=0).sqrt()"), "root"),
        ("axes.plot(theta, theta)" + LABELS, "Wasserstein"),
        (JSD.format("0.5 * ((p * (p / (p + q) * 2).log() + q * (q / (p + q) * 2).log()).sum() * dx) + (log_p - 2000).exp().log().sum()"), "nan"),
        (JSD.format("0.5 * ((p * (log_p - log_m - math.log(2)) + q * (log_q - log_m - math.log(2))).sum() * dx)"), "density"),
    ],
    "5.1": [
        ("2", "squared"),
        ("16", "1 / n^2"),
        ("1", "does fall"),
        ("0.25", "smaller"),
        ("8", "not it"),
    ],
    "5.2": [
        (COVER.replace("[:, k]", "[:, k - 1]") + "return (between.min(1).values <= radius).float().mean()", "itself"),
        (COVER + "return (between <= radius[:, None]).any(0).float().mean()", "precision"),
        (COVER + "return (between <= radius[:, None]).float().mean()", "density's count"),
        (COVER + "return (between <= radius[:, None]).sum() / (k * len(fake))", "is density"),
        (COVER + "return (between.min(1).values > radius).float().mean()", "not* covered"),
        (COVER + "return (between.min(1).values <= radius).sum()", "number of covered"),
        (COVER + "return (between.min(1).values <= radius)", "take the share"),
        ("return 1.0", "is right"),
        ("return metrics.coverage(fake, real, k)", "swapped"),
        ("radius = torch.cdist(fake, fake).sort(1).values[:, k]\nreturn (torch.cdist(real, fake) <= radius).any(1).float().mean()", "recall"),
    ],
    "5.3": [
        ("return torch.cdist(images.flatten(1), training.flatten(1)).min(1).values", "not divided"),
        ("return torch.cdist(images.flatten(1), training.flatten(1)).mean(1) / images[0].numel() ** 0.5", "mean distance"),
        ("return torch.cdist(images.flatten(1), training.flatten(1)).min(0).values / images[0].numel() ** 0.5", "through the training"),
        ("return torch.cdist(images.flatten(1), training.flatten(1)).min(1).values / images[0].numel()", "root of d"),
        ("return (images[:, None] - training).square().flatten(2).mean(2).min(1).values", "root is missing"),
        ("return (images[:, None] - training).abs().flatten(2).mean(2).min(1).values", "absolute"),
        ("return torch.cdist(images.flatten(1), training.flatten(1)).argmin(1)", "indices"),
        ("return torch.cdist(images.flatten(1), training.flatten(1)).min(1).values / 768**0.5", "times"),
        ("return torch.cdist(images.flatten(1), training.flatten(1)).min(1)", ".values"),
        ("return (torch.cdist(images.flatten(1), training.flatten(1)).min(1).values / images[0].numel() ** 0.5).mean()", "averaged"),
    ],
    "5.4": [
        ("return metrics.frechet_distance(real, second), metrics.frechet_distance(real, first)", "swapped"),
        ("n = min(len(first), len(second))\nf = metrics.frechet_distance\nreturn f(real, second[:n]), f(real, first[:n])", "swapped"),
        ("f = first.repeat(2, 1)\nreturn metrics.frechet_distance(real, f), metrics.frechet_distance(real, second)", "as much as before"),
        ("d = metrics.frechet_distance(real, first)\nreturn d, d", "same distance"),
        ("f = metrics.frechet_distance\nreturn f(real, first[:1900]), f(real, second[:1900])", "as much as before"),
        ("return metrics.frechet_distance(first, second)", "two distances"),
        ("f = metrics.frechet_distance\nreturn f(real, first), f(real, second[: len(first)])", "whichever"),
        ("f = metrics.frechet_distance\nreturn f(real, first[:200]), f(real, second[:200])", "the same size"),
        ("f, n = metrics.frechet_distance, 2 * min(len(first), len(second))\nreturn f(real, first[:n]), f(real, second[:n])", "the same size|true distance"),
        ("d = lambda s: (real.mean(0) - s.mean(0)).square().sum()\nreturn d(first), d(second)", "true distance"),
        ("f, n = metrics.frechet_distance, min(len(first), len(second))\nreturn f(real, first[:n]) / 2, f(real, second[:n]) / 2", "true distance"),
        ("f, n = metrics.frechet_distance, min(len(first), len(second))\nreturn f(real, first[:n]) ** 0.5, f(real, second[:n]) ** 0.5", "true distance"),
        ("f, n = metrics.frechet_distance, min(len(first), len(second))\nreturn f(real, first[:n]) + 5, f(real, second[:n]) + 5", "perfect model"),
        ("f, n = metrics.frechet_distance, min(len(first), len(second))\nreturn -f(real, second[:n]), -f(real, first[:n])", "perfect model"),
        ("return torch.tensor(metrics.frechet_distance(first, second))", "two distances"),
        ("return 0.0, metrics.frechet_distance(real, second)", "true distance"),
        ("f = metrics.frechet_distance\nreturn [f(real, s) * len(s) / 2000 for s in (first, second)]", "true distance"),
        ("f = metrics.frechet_distance\nreturn f(real, first) - 0.3, f(real, second) - 0.15", "true distance"),
    ],
    "5.5": [
        (RUNS.format("coverage", "fidelity"), "swapped"),
        (RUNS.format("fidelity 90%", "coverage"), "quantile"),
        (RUNS.replace("for r in rows]", "for r in rows if r.get('fidelity x_hat')]").format("fidelity x_hat", "coverage"), "reconstructions|points"),
        (RUNS.format("fidelity", "sharpness"), "sharpness"),
        (RUNS.format("frechet", "coverage"), "Frechet"),
        (
            "names = dict.fromkeys(r['name'] for r in rows)\n"
            "of = [[r for r in rows if r['name'] == n] for n in names]\n"
            "mid = lambda key: [sorted(r[key] for r in some)[1] for some in of]\n"
            "axes.plot(mid('fidelity'), mid('coverage'))" + LABELS,
            "medians",
        ),
    ],
    "6.1": [
        ("0", "z_t determines"),
        ("1", "difference"),
        ("0.5", "variance of z_t"),
        ("math.sqrt(2)", "standard deviation"),
        ("4", "not it"),
    ],
    "6.2": [
        ("return z_t - t * v", "other end"),
        ("return z_t - (1 - t) * v", "flipped"),
        ("return z_t + t * v", "not t"),
        ("return -(z_t + (1 - t) * v) / t", "score"),
        ("return (1 - t) * v", "missing"),
        ("return z_t + v", "stand at"),
        ("return (z_t + (1 - t) * v).mean()", "shape"),
    ],
    "6.3": [
        ("return alpha_bar[i] * z + (1 - alpha_bar[i]).sqrt() * eps", "Now z"),
        ("return alpha_bar[i] * z + (1 - alpha_bar[i]) * eps", "Both roots"),
        ("return alpha_bar[i].sqrt() * z + (1 - alpha_bar[i].sqrt()) * eps", "not its root"),
        ("return (1 - alpha_bar[i]).sqrt() * z + alpha_bar[i].sqrt() * eps", "swapped"),
        ("return z + (1 - alpha_bar[i]).sqrt() * eps", "not shrunk"),
        ("a = alpha_bar[i - 1]\nreturn a.sqrt() * z + (1 - a).sqrt() * eps", "index"),
    ],
    "6.4": [
        ("return net(z_t, t, words)", "w is ignored"),
        ("return net(z_t, t)", "words are ignored"),
        ("a, b = net(z_t, t, words), net(z_t, t)\nreturn a + w * (b - a)", "swapped"),
        ("return w * net(z_t, t, words)", "where is"),
        ("return net(z_t, t) + w * net(z_t, t, words)", "difference of the two"),
        ("a, b = net(z_t, t, words), net(z_t, t)\nreturn a + w * (a - b)", "one too far"),
        ("return w * (net(z_t, t, words) - net(z_t, t))", "no velocity"),
        ("a, b = net(z_t, t, words), net(z_t, t)\nreturn b + 3 * (a - b)", "w = 0.5"),
    ],
    "6.5": [
        (STEPS.format("i / n", " ** 2"), "variance"),
        (STEPS.replace("x - v", "x + v").format("i / n", ""), "flipped"),
        (STEPS.format("(i - 1) / n", ""), "wrong times"),
        (STEPS.format("(n - i) / n", ""), "wrong times"),
        (STEPS.format("1.0", ""), "stays at 1"),
        (STEPS.replace("axes.set", "0 and axes.set").format("i / n", ""), "Label"),
    ],
}  # fmt: skip

# Other right answers: other algebra, float64, arrays, other shapes, numbers.
RIGHT = {
    "1.1": ["0.02", "0.01"],
    "1.2": [
        SLACK.format("log10_faces", "log10((2 * slack + 3)"),
        "edge = levels * 10 ** (-log10_faces / n_values)\n"
        "return math.ceil((edge - 1) / 2) - 1",
        "t = torch.arange(levels).double()\n"
        "bound = log10_faces + n_values * ((2 * t + 1) / levels).log10()\n"
        "return (bound < 0).sum() - 1",
        "slack = 0\n"
        "while 10**log10_faces * ((2 * slack + 3) / levels) ** n_values < 1:\n"
        "    slack += 1\n"
        "return float(slack)",
    ],
    "1.3": [
        SHEET.format(FOUR),
        SHEET.format(f"({FOUR}).numpy()"),
        SHEET.format(f"({FOUR}).double().tolist()"),
        "s = torch.linspace(0, 1, n)\n"
        "left = [z_a + u * (z_c - z_a) for u in s]\n"
        "right = [z_b + u * (z_d - z_b) for u in s]\n"
        "return torch.stack([torch.lerp(a, b, s[:, None]) "
        "for a, b in zip(left, right)])",
        "u = torch.linspace(0, 1, n)\nw = torch.stack([1 - u, u])\n"
        "z = torch.stack([z_a, z_b, z_c, z_d]).view(2, 2, 8)\n"
        "return torch.einsum('is,jt,ijk->stk', w, w, z)",
    ],
    "1.4": [
        "return ((a.float() + b.float()) / 2).to(torch.uint8)",
        "return ((a.int() + b.int() + 1) // 2).to(torch.uint8)",
        "return a // 2 + b // 2 + (a & b & 1)",
        "return ((a.numpy().astype(int) + b.numpy()) // 2).astype('uint8')",
        "return torch.lerp(a.double(), b.double(), 0.5).round().to(torch.uint8)",
    ],
    "1.5": [
        "axes.plot(range(1, 601), 100 * variances.cumsum(0) / variances.sum())"
        + LABELS,
        "s = [0] + (variances.cumsum(0) / variances.sum()).tolist()\n"
        "axes.plot(range(601), s)" + LABELS,
        "axes.scatter(range(1, 601), variances.cumsum(0) / variances.sum())" + LABELS,
        "axes.bar(range(1, 601), (variances.cumsum(0) / variances.sum()).tolist())"
        + LABELS,
        "axes.plot(range(1, 601), variances.cumsum(0) / variances.sum())\n"
        "axes.axhline(0.95)\naxes.axvline(8)" + LABELS,
        "s = variances.cumsum(0) / variances.sum()\n"
        "axes.stairs(s, numpy.arange(0.5, 601))" + LABELS,
        "axes.stairs(variances.cumsum(0) / variances.sum(), fill=True)" + LABELS,
        "axes.fill_between(range(1, 601), variances.cumsum(0) / variances.sum())"
        + LABELS,
        "axes.vlines(range(1, 601), 0, variances.cumsum(0) / variances.sum())" + LABELS,
    ],
    "1.6": [
        FREEZE.format(LAST, IMAGES, "m, d"),
        FREEZE.format("frozen[:, k:8] = 0", IMAGES, 'm, d, "o"'),
    ],
    "2.1": ["1", "torch.tensor(1.0)", "__import__('fractions').Fraction(1, 1)"],
    "2.2": [
        "z.requires_grad_(True)\n"
        "(x - z @ W - b).square().sum().backward()\nreturn z.grad",
        "return -2 * (x - z @ W - b).double() @ W.double().T",
        "return torch.einsum('bd,kd->bk', 2 * (z @ W + b - x), W)",
    ],
    "2.3": [
        "return F.mse_loss(x_hat, x, reduction='none').flatten(1).sum(1)",
        "return (x - x_hat).flatten(1).norm(dim=1) ** 2",
        "return ((x - x_hat) ** 2).sum(dim=(1, 2, 3)).double().numpy()",
        "return [((a - b) ** 2).sum() for a, b in zip(x, x_hat)]",
        "d = (x - x_hat).flatten(1)\nreturn torch.einsum('bi,bi->b', d, d)",
        "return torch.cdist(x.flatten(1), x_hat.flatten(1)).diag() ** 2",
    ],
    "2.4": [
        SHIFT.format("losses.squared_error(x, x.roll(s, -1)).mean().item()"),
        "for s in range(9):\n"
        "    axes.plot(s, losses.squared_error(x, x.roll(s, 3)).mean(), 'o')\n"
        "axes.hlines(50, 0, 8)\naxes.fill_between([0, 8], [0, 0], [1, 1])" + LABELS,
        SHIFT.format("losses.squared_error(x, x.roll(s, 3)).mean()").replace(
            '"It says more than it seems to."', '"移动一个像素也要付出很大的代价。"'
        ),
        SHIFT.replace("plot", "scatter").format(
            "(x - x.roll(s, 3)).square().sum() / 64"
        ),
    ],
    "2.5": [
        "return torch.distributions.MultivariateNormal("
        "codes.mean(0), codes.T.cov()).sample((n,))",
        "v, V = torch.linalg.eigh(codes.T.cov())\n"
        "return codes.mean(0) + torch.randn(n, codes.shape[1]) @ (V * v.sqrt()).T",
        "c = codes.double() - codes.mean(0)\n"
        "w = torch.randn(n, len(c)).double() / len(c) ** 0.5\n"
        "return codes.mean(0) + w @ c",
        "return numpy.random.multivariate_normal(codes.mean(0), codes.T.cov(), n)",
    ],
    "2.6": [
        DENOISE,
        DENOISE.replace("return loss", "return loss.item()"),
        DENOISE.replace(
            "sigma * torch.randn_like(x)", "torch.normal(0, sigma, x.shape)"
        ),
        DENOISE.replace(
            "losses.squared_error(x, x_hat).mean()",
            "F.mse_loss(x_hat, x, reduction='sum') / len(x)",
        ),
    ],
    "3.1": ["5", "5.0", "torch.tensor([5.0])"],
    "3.2": [
        "return torch.distributions.Normal(mu, (logvar / 2).exp()).rsample()",
        "return mu - logvar.exp().sqrt() * torch.randn(mu.shape)",
        "return mu.double() + (0.5 * logvar.double()).exp() * torch.randn(mu.shape)",
        "noise = torch.from_numpy(numpy.random.randn(*mu.shape)).float()\n"
        "return mu + (logvar / 2).exp() * noise",
        "noise = [[random.gauss(0, 1) for _ in row] for row in mu]\n"
        "return mu + (logvar / 2).exp() * torch.tensor(noise)",
    ],
    "3.3": [
        "return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(-1)",
        "d = torch.distributions\n"
        "q, p = d.Normal(mu, (logvar / 2).exp()), d.Normal(0.0, 1.0)\n"
        "return d.kl_divergence(q, p).sum(1)",
        "return losses.kl_to_prior(mu.double(), logvar.double()).numpy()",
        "m, v = mu.numpy(), logvar.numpy()\n"
        "return 0.5 * (m**2 + numpy.expm1(v) - v).sum(1)",
    ],
    "3.4": [
        "r = F.binary_cross_entropy_with_logits(logits, x)\n"
        "return r + 0.5 * (mu**2 + logvar.exp() - 1 - logvar).mean() * 200 / 784",
        "r = F.binary_cross_entropy_with_logits(logits, x, reduction='sum')\n"
        "return r + losses.kl_to_prior(mu, logvar).sum()",
        "return losses.bernoulli_nll(x, logits) + losses.kl_to_prior(mu, logvar)",
        "return [a + b for a, b in zip("
        "losses.bernoulli_nll(x, logits), losses.kl_to_prior(mu, logvar))]",
        "p = logits.sigmoid()\n"
        "r = F.binary_cross_entropy(p, x, reduction='sum')\n"
        "return (r + losses.kl_to_prior(mu, logvar).sum()) / len(x)",
    ],
    "3.5": [
        PAIRS.format("kl.mean(0), price"),
        "rows = rows[::-1]" + PAIRS.format("kl.mean(0), price"),
    ],
    "3.6": [
        "m = log_w.max(0).values\nreturn m + (log_w - m).exp().mean(0).log()",
        "return torch.logsumexp(log_w.double() - math.log(len(log_w)), 0)",
        "return torch.logcumsumexp(log_w, 0)[-1] - math.log(len(log_w))",
        "return numpy.logaddexp.reduce(log_w.numpy()) - numpy.log(len(log_w))",
    ],
    "4.1": ["139", "140", "150"],
    "4.2": [
        "b = F.binary_cross_entropy_with_logits\n"
        "one = torch.ones_like(real_logits)\n"
        "return (b(real_logits, one, reduction='none') + "
        "b(fake_logits, 0 * one, reduction='none'))",
        "return -F.logsigmoid(real_logits) - F.logsigmoid(-fake_logits)",
        "return [F.softplus(-a) + F.softplus(b) for a, b in zip(real_logits, fake_logits)]",
        "a, b = -real_logits.double(), fake_logits.double()\n"
        "return torch.logaddexp(a, 0 * a) + torch.logaddexp(b, 0 * b)",
    ],
    "4.3": [
        STEP.replace("fake = G(z).detach()", "with torch.no_grad():\n    fake = G(z)"),
        STEP.replace("return loss", "return loss.item()"),
        "optimizer.zero_grad(set_to_none=True)\n"
        "a, b = F.softplus(-D(x)), F.softplus(D(G(z).detach()))\n"
        "a.mean().backward()\nb.mean().backward()\noptimizer.step()\nreturn (a + b).mean()",
        "both = D(torch.cat([x, G(z).detach()]))\n"
        "loss = losses.discriminator_loss(*both.chunk(2)).mean()\n"
        "optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nreturn loss.detach()",
    ],
    "4.4": [
        "return torch.nn.BatchNorm1d(features, 1e-5, 0.2)",
        "return torch.nn.BatchNorm1d(features, momentum=1 - 0.8, eps=1e-5)",
        "return torch.nn.Sequential(torch.nn.BatchNorm1d(features, momentum=0.2))",
        "class Norm(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.norm = torch.nn.BatchNorm1d(features, momentum=0.2).double()\n"
        "    def forward(self, x):\n"
        "        return self.norm(x)\n"
        "return Norm()",
    ],
    "4.5": [
        JSD.format("0.5 * ((p * (log_p - log_m) + q * (log_q - log_m)).sum() * dx)")
    ],
    "5.1": ["4", "4.0"],
    "5.2": [
        COVER + "return (between <= radius[:, None]).any(1).double().mean().item()",
        "return metrics.coverage(real, fake, k)",
        "radius = torch.cdist(real, real).kthvalue(k + 1).values\n"
        "hits = sum(bool((torch.cdist(real[i:i + 1], fake) <= radius[i]).any()) "
        "for i in range(len(real)))\n"
        "return hits / len(real)",
    ],
    "5.3": [
        "return metrics.nearest_distance(images, training)",
        "d = (images[:, None] - training).double().square().flatten(2).mean(2)\n"
        "return d.min(1).values.sqrt().numpy()",
    ],
    "5.4": [
        "n = min(len(first), len(second))\n"
        "pick = torch.randperm(len(second))[:n]\n"
        "return [metrics.frechet_distance(real, first[:n]), "
        "metrics.frechet_distance(real, second[pick])]",
        "n, f = min(len(first), len(second)), metrics.frechet_distance\n"
        "both = [[f(real, p) for p in s.split(n) if len(p) == n] for s in (first, second)]\n"
        "return tuple(sum(parts) / len(parts) for parts in both)",
        "n, f = min(len(first), len(second)), metrics.frechet_distance\n"
        "return torch.tensor([f(real[:n], first[:n]), f(real[:n], second[:n])])",
        "def at_infinity(s):  # extrapolated, Chong & Forsyth\n"
        "    sizes = [len(s) // 2, len(s)]\n"
        "    a, b = (metrics.frechet_distance(real, s[:n]) for n in sizes)\n"
        "    return 2 * b - a\n"
        "return at_infinity(first), at_infinity(second)",
    ],
    "5.5": [
        RUNS.format("fidelity", "coverage"),
        "for r in rows:\n    axes.scatter(r['fidelity'], r['coverage'])" + LABELS,
        "while rows:\n    r = rows.pop()\n    axes.plot(r['fidelity'], r['coverage'], 'o')\n"
        "axes.plot([math.nan], [math.nan], label='proxy')\n"
        "axes.scatter([math.nan], [math.nan])" + LABELS,
        "axes.axhline(1)\nfor r in rows:\n"
        "    axes.errorbar(r['fidelity'], r['coverage'], yerr=0.1)" + LABELS,
        "rows = sorted(rows, key=lambda r: r['coverage'])\n"
        + RUNS.format("fidelity", "coverage"),
    ],
    "6.1": ["2", "2.0", "torch.tensor(2.0)"],
    "6.2": ["return z_t + (1 - t) * v", "return (z_t - t * v) + v"],
    "6.3": [
        "a = alpha_bar[i]\nreturn a.sqrt() * z + (1 - a).sqrt() * eps",
        "a = alpha_bar[i].item()\nreturn math.sqrt(a) * z + eps * math.sqrt(1 - a)",
    ],
    "6.4": [
        "a, b = net(z_t, t, words), net(z_t, t)\nreturn b + w * (a - b)",
        "a = net(z_t, t, words)\nb = net(z_t, t, torch.zeros_like(words))\n"
        "return w * a + (1 - w) * b",
    ],
    "6.5": [
        STEPS.format("i / n", ""),
        STEPS.replace("axes.plot", "axes.scatter").format("i / n", ""),
    ],
}
