"""The exercises of lesson 06, with their hints and the wrong answers that they know."""

import torch

from gencourse.checks.compare import (
    NotAttempted,
    Wrong,
    compare,
    name_mistake,
    numbers,
    scalar,
)
from gencourse.checks.drawing import drawn, match_curve
from gencourse.checks.exercise import exercise


@exercise(
    "6.1",
    "Predict: the loss of a perfect network",
    (
        "The target eps - z is random even when z_t is known. What is left of it after "
        "the best guess?",
        "The best guess is E[eps - z | z_t], and z_t = (z + eps) / 2. What does the "
        "sum z + eps say about the difference eps - z?",
        "Sum and difference of two independent N(0, 1) numbers are independent: the "
        "best guess is 0, and the loss is the variance of eps - z.",
    ),
)
def floor_of_the_loss(trial, prediction):
    floor = scalar(prediction, "the loss")
    mistakes = {
        "Zero would need a target that z_t determines. Many pairs (z, eps) give the "
        "same z_t, and their targets differ.": 0,
        "That is the variance of z or of eps alone; the target is their difference.": 1,
        "That is the variance of z_t; the loss is about eps - z.": 0.5,
        "That is the standard deviation of the target. The loss is a square.": 2**0.5,
    }
    name_mistake(floor, mistakes, tolerance=0.025)
    if not 1.9 <= floor <= 2.1:
        raise Wrong(f"You predict a loss of {floor:g}; that is not it.")
    return "The floor is 2. A loss that stays high is no sign of bad training here."


@exercise(
    "6.2",
    "The noise behind a velocity",
    (
        "Two equations, two unknowns: z_t = (1 - t) z + t eps and v = eps - z.",
        "Put z = eps - v into the first equation.",
        "z_t = (1 - t) (eps - v) + t eps = eps - (1 - t) v. Solve it for eps.",
    ),
)
def noise_behind(trial, answer):
    z_t, v, t = torch.randn(6, 3), torch.randn(6, 3), torch.rand(6, 1)
    mistakes = {
        "That is z_hat, the other end of the line.": z_t - t * v,
        "The sign is flipped: from z_t on, v leads to the noise.": z_t - (1 - t) * v,
        "From z_t it is 1 - t to the noise, not t.": z_t + t * v,
        "That is the score: multiply by -t.": -(z_t + (1 - t) * v) / t,
        "z_t is missing: where does the line begin?": (1 - t) * v,
        "A whole v is the way from z to eps; you stand at z_t.": z_t + v,
    }
    compare(
        trial.run(answer, v, z_t, t),
        z_t + (1 - t) * v,
        mistakes,
        "the noise",
        tolerance=1e-4,
    )
    return "So a network that predicts v predicts eps and z, too."


@exercise(
    "6.3",
    "Spot the bug: a jump along the chain",
    (
        "Draw many eps and compare the variance of the result with 1 - alpha_bar.",
        "q(z_i | z) = N(sqrt(alpha_bar) z, (1 - alpha_bar) I): is the second number a "
        "variance or a standard deviation?",
        "Noise is multiplied by a standard deviation: (1 - alpha_bar[i]).sqrt() * eps.",
    ),
)
def too_little_noise(trial, answer):
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
    for i in (150, 400):
        a = alpha_bar[i]
        z, eps = torch.randn(8, 3), torch.randn(8, 3)
        got = numbers(trial.run(answer, z, i, alpha_bar, eps), "z_i")
        published = a.sqrt() * z + (1 - a) * eps
        if got.shape == z.shape and torch.allclose(got, published.double(), atol=1e-5):
            raise NotAttempted(
                f"at i = {i} this adds noise of variance {(1 - a).square():.2f}; the "
                f"closed form says {1 - a:.2f}."
            )
        root = (1 - a).sqrt()
        before = alpha_bar[i - 1]
        mistakes = {
            "Now z has alpha_bar where its root belongs.": a * z + root * eps,
            "Both roots are missing.": a * z + (1 - a) * eps,
            "The variance is 1 - alpha_bar, and 1 - sqrt(alpha_bar) is not its root.": (
                a.sqrt() * z + (1 - a.sqrt()) * eps
            ),
            "The two factors are swapped.": root * z + a.sqrt() * eps,
            "The noise is right; now z is not shrunk.": z + root * eps,
            "That is the step before: one index too small.": (
                before.sqrt() * z + (1 - before).sqrt() * eps
            ),
        }
        compare(got, a.sqrt() * z + root * eps, mistakes, "z_i", tolerance=1e-5)
    return (
        "A shape cannot tell a variance from a standard deviation. A closed form can."
    )


@exercise(
    "6.4",
    "Guidance",
    (
        "Ask the network twice: once with the words, once without.",
        "Go from the answer without words toward the one with them, w times as far.",
        "nothing = net(z_t, t); told = net(z_t, t, words); return nothing + w * (told "
        "- nothing).",
    ),
)
def guidance(trial, answer):
    weight = torch.randn(8, 3)

    def net(z_t, t, words=None):  # any function of its three inputs
        words = z_t.new_zeros(len(z_t), 4) if words is None else words
        return torch.tanh(torch.cat([z_t, t, words], dim=1) @ weight)

    z_t, t = torch.randn(6, 3), torch.rand(6, 1)
    words = torch.randint(2, (6, 4)).float()
    words[:, 0] = 1
    told, nothing = net(z_t, t, words), net(z_t, t)
    for w in (3.0, 0.5, 1.0, 0.0):
        mistakes = {
            "w is ignored: that is the answer with words.": told,
            "The words are ignored.": nothing,
            "Words and nothing are swapped.": told + w * (nothing - told),
            "That is w times the answer with words; where is the one without?": (
                w * told
            ),
            "Take the difference of the two answers: words minus nothing.": (
                nothing + w * told
            ),
            "That starts at the answer with words: your w = 0 is our w = 1, so it goes "
            "one too far.": told + w * (told - nothing),
            "The difference alone is no velocity: add it to something.": (
                w * (told - nothing)
            ),
        }
        want = nothing + w * (told - nothing)
        # Where w is 0 or 1 many formulas agree.
        compare(
            trial.run(answer, net, z_t, t, words, w),
            want,
            mistakes if w == 3 else {},
            f"the velocity at w = {w:g}",
            tolerance=1e-4,
        )
    return "w = 0 ignores the words, w = 1 is the model's own, w > 1 exaggerates."


@exercise(
    "6.5",
    "Plot and say: what few steps do",
    (
        "For each n: start at z, take n steps of length 1 / n from t = 1 to t = 0, and "
        "collect the standard deviation of what comes out.",
        "t = i / n for i = n, n - 1, .., 1, and x = x - v(x, t) / n.",
        "for n in counts: x = z; for i in range(n, 0, -1): x = x - v(x, i / n) / n; "
        "then deviations.append(x.std()). axes.plot(counts, deviations).",
    ),
)
def few_steps(trial, answer):
    counts, z = [1, 2, 4, 8, 16, 32], torch.randn(4000)

    def v(z_t, t):  # exact for z ~ N(0, 1/4)
        return (t - (1 - t) / 4) / ((1 - t) ** 2 / 4 + t**2) * z_t

    def euler(n, time=lambda i, n: i / n, sign=-1):
        x = z
        for i in range(n, 0, -1):
            x = x + sign * v(x, time(i, n)) / n
        return x.std()

    want = [euler(n) for n in counts]
    mistakes = {
        "That is the variance; draw the standard deviation.": [s**2 for s in want],
        "The sign is flipped: v points to the noise, you come from there.": [
            euler(n, sign=1) for n in counts
        ],
        "You ask at the wrong times: the first step asks at t = 1, each at its own "
        "start.": [euler(n, time=lambda i, n: (i - 1) / n) for n in counts],
        "t stays at 1: it falls by 1 / n in each step.": [
            euler(n, time=lambda i, n: 1.0) for n in counts
        ],
    }
    points = drawn(trial, answer, v, z, counts, alt="Your curve: deviation and steps.")
    match_curve(
        points, counts, want, {hint: (counts, y) for hint, y in mistakes.items()}
    )
    return (
        "Only you can grade the sentence. Ours: few steps of Euler shrink the samples "
        "toward the mean, and one step leaves nothing but the mean."
    )
