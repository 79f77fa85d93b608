"""The playground in a browser: the same pictures as in Python, for every reader."""

import base64
import copy
import itertools
import json
import re

import numpy as np
import pytest
import torch

from gencourse import faces, models, store

CLOSE = 2.5e-3  # of the way from black to white; the page stores weights with 16 bits
PIXELS = """(id) => {
  const canvas = document.getElementById(id);
  const whole = [0, 0, canvas.width, canvas.height];
  const { data } = canvas.getContext("2d").getImageData(...whole);
  return Array.from(data).filter((_, i) => i % 4 < 3);
}"""
# Numbers travel as base64: as text, millions of them would take half a minute.
DRAW = """([what, inputs, size]) => {
  const blocks = inputs.map((input) => window.gencourse[what](input, size));
  return blocks.map((block) => {
    let text = "";
    for (const byte of new Uint8Array(block.buffer)) text += String.fromCharCode(byte);
    return btoa(text);
  });
}"""


@pytest.fixture
def visit(open_page, site):
    """Return `visit(**options)`: the playground in a new context."""

    def visit(**options):
        return open_page((site / "playground.html").as_uri(), **options)

    return visit


@pytest.fixture(scope="module")
def vae():
    return store.pretrained(models.VAE)


def drawn(page, what, inputs, size=32):
    """What window.gencourse draws, (N, 3, size, size) float32."""
    texts = page.evaluate(DRAW, [what, inputs.tolist(), size])
    blocks = [np.frombuffer(base64.b64decode(text), "<f4") for text in texts]
    return torch.from_numpy(np.stack(blocks)).view(len(inputs), 3, size, size)


def pixels(page, canvas):
    return page.evaluate(PIXELS, canvas)


def state(page):
    return page.evaluate("window.gencourse.state()")


def press(page, name):
    page.get_by_role("button", name=name).click()


def expected_pixels(page, what, values):
    """What a canvas shows for them: bytes of red, green, blue for each pixel."""
    image = drawn(page, what, torch.tensor([values], dtype=torch.float64))[0]
    return (255 * image.double()).round().permute(1, 2, 0).flatten().int().tolist()


def same(first, second):
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 1


# --- the same pictures as in Python ---------------------------------------------------


def test_decoder_agrees_with_torch(visit, vae):
    rng = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 2, (40, 10), generator=rng) * 6.0 - 3
    axes = torch.cat([3 * torch.eye(10), -3 * torch.eye(10), torch.zeros(1, 10)])
    z = torch.cat([vae.prior(40, rng), corners, axes])
    images = drawn(visit(), "decode", z)
    # All of the difference is the rounding of the weights: torch has it, too.
    rounded = copy.deepcopy(vae).half().float()
    with torch.no_grad():
        assert (images - vae.decode(z)).abs().max() < 2 * CLOSE
        assert torch.allclose(images, rounded.decode(z), atol=1e-5)


@pytest.mark.parametrize(("size", "every"), [(32, 5), (128, 51)])
def test_renderer_agrees_with_python(visit, size, every):
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))[::every]
    sampled = faces.sample_knobs(len(corners), seed=2)
    knobs = torch.cat([sampled, corners, torch.zeros(1, 8)])
    images = drawn(visit(), "render", knobs, size)
    assert (images - faces.render(knobs, size)).abs().max() < CLOSE


@pytest.mark.parametrize("guidance", [0, 1, 6])
def test_flow_agrees_with_torch(visit, guidance):
    flow = store.pretrained(models.Flow, "flow_words")
    autoencoder = store.pretrained(models.Autoencoder)
    words = torch.zeros(16)
    words[[2, 8 + faces.SMILE]] = 1.0  # a small gap between the eyes, and a smile
    noise = flow.prior(12, torch.Generator().manual_seed(4))
    page = visit()
    call = (
        "([noise, words, w]) => noise.map((z) => window.gencourse.carry(z, words, w))"
    )
    paths = page.evaluate(call, [noise.tolist(), words.tolist(), guidance])
    guesses = torch.tensor(paths)  # (12, 20, 10)
    if guidance == 0:  # the first guess is nearly the same, whatever the noise
        spread = guesses.std(0).mean(1)  # (20,)
        assert spread[0] < 0.3 * spread[-1]
    z = noise
    with torch.no_grad():
        for i in range(20):
            t = torch.full((12, 1), 1 - i / 20)
            v = flow.velocity(z, t, words, guidance)
            guess = flow.restore(models.z_hat_of(v, z, t))
            assert torch.allclose(guesses[:, i], guess, atol=1e-5)
            z = z - v / 20
        arrived = flow.restore(flow.carry(noise, 1, 0, words, guidance, 20, heun=False))
        assert torch.allclose(guesses[:, -1], arrived, atol=1e-5)
        images = drawn(page, "decodeCode", guesses.flatten(0, 1))
        wanted = autoencoder.decode(guesses.flatten(0, 1))
        assert (images - wanted).abs().max() < 2 * CLOSE


def test_random_codes_are_normal(visit):
    codes = visit().evaluate("Array.from({ length: 20000 }, randomCode)")
    z = torch.tensor(codes)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    # Of N(0, 1), 68.3% and 95.4% lie within one and two standard deviations.
    for limit, share in ((1, 0.683), (2, 0.954)):
        assert abs((z.abs() < limit).double().mean() - share) < 0.01


# --- what the controls do -------------------------------------------------------------


def test_buttons_change_the_learned_face(visit):
    page = visit()
    start = pixels(page, "learned")
    assert same(start, expected_pixels(page, "decode", [0.0] * 10))
    press(page, "Random face")
    first = pixels(page, "learned")
    assert not same(first, start)
    assert same(first, expected_pixels(page, "decode", state(page)["z"]))
    press(page, "Random face")
    assert not same(pixels(page, "learned"), first)
    press(page, "Reset to z = 0")
    assert state(page)["z"] == [0] * 10
    assert pixels(page, "learned") == start


def test_buttons_change_the_true_face(visit):
    page = visit()
    start = pixels(page, "true")
    assert same(start, expected_pixels(page, "render", [0.0] * 8))
    press(page, "Random knobs")
    shown = pixels(page, "true")
    assert not same(shown, start)
    knobs = state(page)["knobs"]
    assert same(shown, expected_pixels(page, "render", knobs))
    assert all(-1 <= knob <= 1 for knob in knobs)
    page.get_by_label("128 × 128").check()
    assert len(pixels(page, "true")) == 3 * 128 * 128
    page.get_by_label("32 × 32").check()
    assert pixels(page, "true") == shown
    press(page, "Reset to 0")
    assert pixels(page, "true") == start


def test_every_slider_obeys_the_keyboard(visit):
    page = visit()
    for canvas, group, values, step, most in (
        ("learned", "codes", "z", 0.1, "3.00"),
        ("true", "knobs", "knobs", 0.05, "1.00"),
    ):
        for j in range(len(state(page)[values])):
            before = pixels(page, canvas)
            slider = page.locator(f"#{group}-{j + 1}")
            slider.press("ArrowRight")
            assert state(page)[values][j] == pytest.approx(step)
            slider.press("End")
            assert pixels(page, canvas) != before
            assert page.locator(f"output[for={group}-{j + 1}]").inner_text() == most


def test_words_and_guidance_change_the_face_of_one_noise(visit):
    page = visit()
    noise, free = state(page)["noise"], pixels(page, "flowed")
    page.get_by_role("combobox", name="smile").select_option("smile")
    page.get_by_role("combobox", name="hair color").select_option(index=2)
    words = [0] * 16
    words[8 + faces.SMILE] = words[15] = 1
    assert state(page)["words"] == words and state(page)["noise"] == noise
    told = pixels(page, "flowed")
    assert not same(told, free)
    guidance = page.get_by_role("slider", name="guidance")
    guidance.press("End")
    assert state(page)["guidance"] == 6 and not same(pixels(page, "flowed"), told)
    guidance.press("Home")  # w = 0 ignores the words
    assert same(pixels(page, "flowed"), free)
    page.get_by_role("slider", name="step").press("Home")
    assert state(page)["step"] == 1 and not same(pixels(page, "flowed"), free)
    press(page, "No words")
    assert state(page)["words"] == [0] * 16
    assert state(page)["step"] == 20 and same(pixels(page, "flowed"), free)


def test_times_are_shown(visit):
    page = visit()
    for name in ("learned-ms", "flow-ms", "true-ms"):
        assert float(page.locator(f"#{name}").inner_text()) >= 0


# --- the walk -------------------------------------------------------------------------


def test_a_walk_begins_and_ends_at_its_faces(visit):
    page = visit()
    press(page, "Walk between two faces")
    press(page, "Stop")
    ends = state(page)["ends"]
    assert ends[0] != ends[1]
    share = page.get_by_role("slider", name="share t of the last face")
    for key, canvas, z in (("Home", "first", ends[0]), ("End", "last", ends[1])):
        share.press(key)
        assert state(page)["z"] == z
        assert pixels(page, "learned") == pixels(page, canvas)
        assert same(pixels(page, canvas), expected_pixels(page, "decode", z))
    share.fill("0.5")
    middle = [(a + b) / 2 for a, b in zip(*ends, strict=True)]
    assert state(page)["z"] == pytest.approx(middle)
    press(page, "Walk between two faces")
    assert state(page)["ends"] != ends


def stop_the_clock(page):
    """From here on, time passes in the page only where `page.clock` says so."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def test_a_walk_plays_stops_and_goes_on(visit):
    page = visit()
    stop_the_clock(page)
    press(page, "Walk between two faces")
    page.clock.run_for(2000)
    press(page, "Stop")
    held = state(page)["share"]
    assert held == pytest.approx(0.5, abs=0.02)  # four seconds for all of it
    page.clock.run_for(2000)
    assert state(page)["share"] == held
    press(page, "Play")
    page.clock.run_for(1000)
    assert state(page)["share"] == pytest.approx(held + 0.25, abs=0.02)
    page.locator("#codes-1").press("ArrowRight")  # a hand on a slider ends the walk
    held = state(page)["z"]
    page.clock.run_for(2000)
    assert state(page)["z"] == held
    press(page, "Play")
    page.clock.run_for(2000)
    assert state(page)["share"] == 1
    assert page.get_by_role("button", name="Play").is_visible()


def test_nothing_moves_by_itself_where_less_motion_is_wanted(visit):
    page = visit()
    words = page.get_by_text("asks for less motion")
    assert not words.is_visible()
    page = visit(reduced_motion="reduce")
    stop_the_clock(page)
    press(page, "Walk between two faces")
    page.clock.run_for(2000)
    assert state(page)["share"] == 0
    for tenths in (*range(1, 11), 0, 1):
        press(page, "Next step")
        assert state(page)["share"] == pytest.approx(tenths / 10)
    page.clock.run_for(2000)
    assert state(page)["share"] == pytest.approx(0.1)
    assert page.get_by_text("asks for less motion").is_visible()


def test_noise_becomes_a_face_in_twenty_steps(visit):
    page = visit()
    stop_the_clock(page)
    before = state(page)["noise"]
    press(page, "From noise to a face")
    noise = state(page)["noise"]
    assert noise != before and state(page)["step"] == 1
    page.clock.run_for(1500)
    assert 8 <= state(page)["step"] <= 12
    page.clock.run_for(1500)
    assert state(page)["step"] == 20
    face = pixels(page, "flowed")
    page.clock.run_for(1000)
    press(page, "Same noise again")
    assert state(page)["noise"] == noise and not same(pixels(page, "flowed"), face)
    page.clock.run_for(3100)
    assert pixels(page, "flowed") == face
    page = visit(reduced_motion="reduce")
    press(page, "From noise to a face")
    assert state(page)["step"] == 20


# --- for every reader -----------------------------------------------------------------


def test_everything_has_a_name(visit):
    page = visit()
    for j in range(10):
        assert page.get_by_role("slider", name=re.compile(rf"^z{j}\b")).count() == 1
    for name in faces.KNOB_NAMES:
        assert page.get_by_role("slider", name=name, exact=True).count() == 1
    assert page.get_by_role("slider").count() == 10 + len(faces.KNOBS) + 3
    assert page.get_by_role("combobox").count() == len(faces.KNOBS)
    assert page.get_by_role("img").count() == page.locator("canvas").count() == 6
    for canvas in page.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label")) > 20
    labels = (
        "[...document.querySelectorAll('input, select')].map((i) => i.labels.length)"
    )
    assert set(page.evaluate(labels)) == {1}


def test_descriptions_follow_the_pictures(visit):
    page = visit()
    smile = page.get_by_role("slider", name="smile")
    for key, text, word in (("End", "1.00", "smile"), ("Home", "-1.00", "frown")):
        smile.press(key)
        assert smile.get_attribute("aria-valuetext") == f"{text}, {word}"
        assert f"smile: {word}" in page.locator("#true").get_attribute("aria-label")
    page.locator("#codes-1").press("End")
    assert "z = (3.0, 0.0" in page.locator("#learned").get_attribute("aria-label")


def test_unused_dimensions_are_named_as_such_and_no_others(visit, vae):
    page = visit()
    model = json.loads(page.locator("#model").inner_text())
    with torch.no_grad():
        mu, logvar = vae.encode(faces.render(faces.sample_knobs(1000, seed=3)))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (logvar / 2).exp()),
        torch.distributions.Normal(0, 1),
    ).mean(0)
    assert torch.allclose(torch.tensor(model["nats"]), kl, atol=0.1)
    unused = [f"z{j}" for j in range(10) if kl[j] < 0.01]
    assert 0 < len(unused) < 10, "the test needs a model with some of both kinds"
    labels = page.locator("#codes label").all_inner_texts()
    said = [label.split()[0] for label in labels if "unused" in label]
    assert said == unused
    assert f"{', '.join(unused)}." in page.get_by_role("list").inner_text()


def test_nothing_is_wider_than_the_window(visit):
    page = visit()
    page.get_by_label("128 × 128").check()
    for width in (320, 360, 760, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for element in page.locator("input, select, button, canvas").all():
            box = element.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_a_thumb_can_draw_on_a_phone(visit):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    start = pixels(page, "learned")
    page.get_by_role("button", name="Random face").tap()
    shown = pixels(page, "learned")
    assert shown != start
    slider = page.locator("#codes-4")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.touchscreen.tap(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2)
    assert state(page)["z"][3] > 2
    assert pixels(page, "learned") != shown
    page.locator("#codes-10").scroll_into_view_if_needed()
    canvas = page.locator("#learned").bounding_box()
    assert 0 <= canvas["y"] < 300, "the face is out of sight at the last slider"
    for button in page.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44
