"""The exercises of lesson 02, with their hints and the wrong answers that they know."""

import copy

import torch

from gencourse import faces, losses
from gencourse.checks.compare import (
    NotAttempted,
    Wrong,
    compare,
    listed,
    name_mistake,
    numbers,
    scalar,
)
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.draws import draws_of, refuse_other_shapes
from gencourse.checks.exercise import exercise


@exercise(
    "2.1",
    "Predict: the largest step",
    (
        "Follow the distance to the minimum, e = w - 3. What does one step make of it?",
        "The gradient is 2 (w - 3) = 2e, so a step gives e - eta * 2e = (1 - 2 eta) e.",
        "It converges while |1 - 2 eta| < 1. At which eta does that first fail?",
    ),
)
def largest_step(trial, prediction):
    eta = scalar(prediction, "the step size")
    mistakes = {
        "0.5 is the *best* step: it lands on the minimum at once. Larger ones jump "
        "over it, and still get closer each time. Up to what size?": 0.5,
        "That is right for the loss (w - 3)^2 / 2. Here the gradient is 2 (w - 3).": 2,
    }
    name_mistake(eta, mistakes, tolerance=0.02)
    if eta <= 0:
        raise Wrong("A step size is positive; with a negative one the loss rises.")
    if abs(eta - 1) > 0.01:
        outcome = "converges" if eta < 1 else "runs away"
        raise Wrong(
            f"With steps of {eta:g} it {outcome}: each step multiplies w - 3 by "
            f"{1 - 2 * eta:.3g}. The limit is elsewhere."
        )
    return (
        "At 1 it jumps from one side to the other forever. For every quadratic loss "
        "the limit is 2 over the largest curvature, here 2 / 2."
    )


@exercise(
    "2.2",
    "How the error reaches the code",
    (
        "The chain rule: the gradient in x_hat first, then what a change of z does to "
        "x_hat.",
        "In x_hat it is 2 (x_hat - x), a row for each image. And x_hat = z W + b "
        "changes by W's row j when z_j grows by one.",
        "2 * (x_hat - x) @ W.T, with x_hat = z @ W + b.",
    ),
)
def error_reaches_the_code(trial, answer):
    x, z = torch.rand(4, 7), torch.randn(4, 3)
    W, b = torch.randn(3, 7), torch.randn(7)
    x_hat = z @ W + b
    in_x_hat = 2 * (x_hat - x)
    want = in_x_hat @ W.T
    mistakes = {
        "The sign is flipped: downhill would lead away from x.": -want,
        "The factor 2 from the square is missing.": want / 2,
        "The factor 2 is missing and the sign is flipped.": -want / 2,
        "That is the gradient of the *mean* over an image; take the sum.": want / 7,
        "That is the gradient of the mean over the batch and the pixels.": want / 28,
        "That is the mean over the batch; each image has its own loss here.": want / 4,
        "This is the gradient in x_hat. How does x_hat change with z?": in_x_hat,
        "This is the loss, not its gradient.": (x - x_hat).square().sum(1),
        "You summed over the images: each has its own code.": want.sum(0),
        "b is missing in x_hat.": 2 * (z @ W - x) @ W.T,
        "z itself is missing in it: x_hat = z W + b.": 2 * (b - x) @ W.T,
        "That is the gradient in W, not in z.": z.T @ in_x_hat,
    }
    compare(trial.run(answer, x, z, W, b), want, mistakes, "the gradient")
    return (
        "What each pixel asks for is added up, weighted by what the code can do for "
        "it. Backpropagation does this for each layer in turn, and goes on into the "
        "encoder."
    )


@exercise(
    "2.3",
    "Spot the bug: a mean that says it is a sum",
    (
        "Print the value for images of 8 x 8 and of 64 x 64 pixels. A sum over pixels "
        "grows with their number; does it?",
        "F.mse_loss divides by all values of the whole batch. The formula wants no "
        "division, and one number for each image.",
        "(x - x_hat).square().flatten(1).sum(1): sum over everything but the batch.",
    ),
)
def mean_for_sum(trial, answer):
    for shape in ((4, 3, 8, 8), (5, 1, 6, 6)):
        x, x_hat = torch.rand(shape), torch.rand(shape)
        want = losses.squared_error(x, x_hat)
        got = numbers(trial.run(answer, x, x_hat), "the loss")
        if got.numel() == 1 and torch.isclose(got, want.mean().double() / x[0].numel()):
            raise NotAttempted(
                "this is the code as published. It gives one number, "
                f"{got.item():.3f}; the formula gives {want[0]:.1f} for the first "
                "image."
            )
        n, squares = x[0].numel(), (x - x_hat).square()
        mistakes = {
            "This is summed over the batch, too; sum each image.": want.sum(),
            "This is the mean over the batch; sum each image.": want.mean(),
            "One number per image now, but still the mean over its pixels.": want / n,
            "You summed over the images; sum the values of each image.": squares.sum(0),
            "Drop the square root: ||.||^2 is the sum itself.": want.sqrt(),
            "You summed the channels only: sum all pixels, too.": squares.sum(1),
            "There is one number per pixel: sum each image.": squares,
            "That is the sum of |x - x_hat|, not of its square.": (
                (x - x_hat).abs().flatten(1).sum(1)
            ),
        }
        compare(got, want, mistakes, "the loss")
    return (
        "Alone, the two differ by a constant factor, which Adam hardly notices. Beside "
        "a second term (lesson 03) it multiplies the weight of that term, by 12,288 at "
        "64 x 64 x 3."
    )


@exercise(
    "2.4",
    "Plot and say: the price of a shift",
    (
        "You need nine numbers. Write the one for s = 2 first, then put it into a "
        "loop.",
        "Compute losses.squared_error(x, shifted).mean() for s = 0, 1, ..., 8 in a "
        "list.",
        "error = [losses.squared_error(x, torch.roll(x, s, dims=3)).mean() for s in "
        "range(9)], then axes.plot(range(9), error) and labels.",
    ),
)
def price_of_a_shift(trial, answer):
    x = faces.render(faces.sample_knobs(64, seed=7), 32)

    def price(measure, dim=3):
        return torch.stack([measure(torch.roll(x, s, dim)).mean() for s in range(9)])

    def squared(y):
        return losses.squared_error(x, y)

    def root(y):
        return squared(y).sqrt()

    def absolute(y):
        return (x - y).abs().flatten(1).sum(1)

    want, s, n = price(squared), range(9), x[0].numel()
    alt = "Your curve: the squared error of a face and its shifted copy."
    points = drawn(trial, answer, x, alt=alt)
    mistakes = {
        "These are shifts up and down; take the last axis.": (s, price(squared, 2)),
        "This is the mean per pixel value; sum over each image.": (s, want / n),
        "This is the sum over all faces; take the mean over them.": (s, want * len(x)),
        "The heights are right, but a shift of 0 is at x = 1.": (range(1, 10), want),
        "The curve begins at a shift of 1; begin at 0.": (range(1, 9), want[1:]),
        "This is the root of the error; plot the square.": (s, price(root)),
        "This is the absolute error; the lesson's is squared.": (s, price(absolute)),
    }
    match_curve(points, s, want, mistakes)
    return (
        "Only you can grade the sentence. Ours: the first pixel, which nobody sees, "
        f"costs {want[1]:.0f} already, and the second about as much again, because "
        "edges move; in a smooth image a small shift would cost almost nothing. Far "
        f"away the curve flattens ({want[8]:.0f}, not {8 * want[1]:.0f}): there the "
        "loss hardly says in which direction to move."
    )


@exercise(
    "2.5",
    "Draw codes from a Gaussian",
    (
        "You need the mean of the codes, (k,), and their covariance, (k, k): "
        "codes.T.cov().",
        "torch.distributions.MultivariateNormal(mean, covariance) draws. By hand: "
        "noise @ L.T + mean, with L the Cholesky factor of the covariance.",
        "return torch.distributions.MultivariateNormal(codes.mean(0), "
        "codes.T.cov()).sample((n,)).",
    ),
)
def draw_codes(trial, answer):
    mix = torch.tensor([[1.0, 0.0, 0.0], [1.5, 0.6, 0.0], [-0.5, 0.2, 2.0]])
    # Skewed, so that neither the median nor the codes themselves will do.
    skewed = torch.empty(4000, 3).exponential_() - 1
    codes = skewed @ mix.T + torch.tensor([2.0, -1.0, 0.5])
    mean, covariance = codes.mean(0).double(), codes.T.cov().double()
    draws = draws_of(trial, answer, codes, 10_000, shape=(10_000, 3))
    if draws.mean(0).abs().max() < 0.1:
        raise Wrong("The draws lie around 0, not around the mean of the codes.")
    if (draws.mean(0) - mean).abs().max() > 0.12:
        raise Wrong(
            f"The means of the draws are {listed(draws.mean(0))}, those of the codes "
            f"{listed(mean)}."
        )
    _compare_covariance(draws.T.cov(), covariance)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (draws - mean).T, upper=False
    )
    if (white.pow(4).mean(1) - 3).abs().max() > 0.6:
        nearest = torch.cdist(draws[:500], codes.double()).min(1).values
        raise Wrong(
            "These are the codes themselves, drawn again: nothing new is made."
            if nearest.median() < 0.01
            else "Mean and covariance are right, but the draws are not Gaussian."
        )
    refuse_other_shapes(trial.run(answer, codes[:, :2], 7), (7, 2))
    return "With these lines section 8 turned an autoencoder into a generator."


def _compare_covariance(got, want):
    def near(a, b):
        return (a - b).abs().max() < 0.06 * b.abs().max() + 0.02

    variances, factor = want.diagonal(), torch.linalg.cholesky(want)
    mistakes = {
        "Each dimension has the right spread, but the draws are not correlated, and "
        "the codes are. Use the whole covariance, not its diagonal.": variances.diag(),
        "The covariance itself was used as a factor of the noise. Use its Cholesky "
        "factor, or MultivariateNormal.": want @ want.T,
        "The spread is that of N(0, I), not that of the codes.": torch.eye(3),
        "The variance was used as a standard deviation, and the correlations are "
        "missing.": variances.square().diag(),
        "The Cholesky factor is on the wrong side: noise @ L.T, since each draw is a "
        "row.": factor.T @ factor,
    }
    for text, wrong in mistakes.items():
        if near(got, wrong):
            raise Wrong(text)
    if near(got, want):
        return
    if near(got.diagonal(), variances):
        raise Wrong(
            "The variances are right, the covariances are not: with the first "
            f"dimension {listed(got[0, 1:])} instead of {listed(want[0, 1:])}."
        )
    raise Wrong(
        f"The variances of the draws are {listed(got.diagonal())}, those of the codes "
        f"{listed(variances)}; compare draws.T.cov() with codes.T.cov()."
    )


@exercise(
    "2.6",
    "A denoising autoencoder",
    (
        "Only the encoder's input is noisy. What should the decoder draw, the noisy "
        "image or the clean one?",
        "x_noisy = x + sigma * torch.randn_like(x) goes into the model; the loss "
        "compares what comes out with x.",
        "x_hat = model(x + sigma * torch.randn_like(x)); loss = "
        "losses.squared_error(x, x_hat).mean(); optimizer.zero_grad(); "
        "loss.backward(); optimizer.step(); return loss.",
    ),
)
def denoising_step(trial, answer):
    model, seen = torch.nn.Linear(6, 6), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    x, sigma, lr = torch.rand(2000, 6), 0.3, 0.02
    old = _weights(model)
    stale = [torch.randn_like(p) for p in model.parameters()]
    for p, gradient in zip(model.parameters(), stale, strict=True):
        p.grad = gradient.clone()  # what the step before has left behind
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    twin = copy.deepcopy(model)
    loss = trial.run(answer, model, optimizer, x, sigma)
    if len(seen) != 1 or seen[0].shape != x.shape:
        raise Wrong(
            f"The model was called {len(seen)} times; call it once, with all images."
        )
    noise = (seen[0] - x).double()
    if noise.abs().max() < 1e-6:
        raise Wrong("The model has seen the clean images: where is the noise?")
    if (noise[1:] - noise[:1]).abs().max() < 1e-6:
        raise Wrong("All images got the same noise: draw it for each value.")
    if noise.mean().abs() > 0.02:
        raise Wrong(
            f"The mean of the noise is {noise.mean():.2f}, not 0: take "
            "torch.randn_like."
        )
    if (noise.std() / sigma - 1).abs() > 0.05:
        raise Wrong(
            f"The noise has a deviation of {noise.std():.2f}; sigma is {sigma:g}."
        )
    if ((noise / sigma).pow(4).mean() - 3).abs() > 0.5:
        raise Wrong("The noise is not Gaussian: take torch.randn_like.")
    got = _weights(model)
    if torch.equal(got, old):
        raise Wrong(
            "The model was not changed. Is backward() or step() missing, or is "
            "zero_grad() between them?"
        )

    def value(target):
        return losses.squared_error(target, twin(seen[0])).mean()

    def after(loss):  # the weights after a step by this loss
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        return old - lr * torch.cat([g.flatten() for g in gradients])

    want = after(value(x))
    mistakes = {
        "The decoder was asked for the *noisy* images, so it learns to draw noise. "
        "Compare x_hat with x.": after(value(seen[0])),
        "The old gradients were still there: optimizer.zero_grad() is missing, or "
        "comes after backward().": want - lr * torch.cat([g.flatten() for g in stale]),
        "The model went uphill: the sign of the loss is flipped.": 2 * old - want,
        "That is the mean over the values of an image, too; sum each image.": (
            old + (want - old) / 6
        ),
        "That is the sum over the batch; take the mean.": old + 2000 * (want - old),
    }
    compare(got, want, mistakes, "the weights after the step")
    compare(
        numbers(loss, "the loss").mean(), value(x), what="the loss that is returned"
    )
    return (
        "A copy of the input no longer earns anything: the model must know what a face "
        "is to take the noise away. Lesson 06 makes a generator of this idea."
    )


def _weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
