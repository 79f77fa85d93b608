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

CLOSE = 1e-2  # of the way from black to white; the page stores weights with 16 bits
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


@pytest.fixture(scope="module")
def built(run_tool, tmp_path_factory):
    path = tmp_path_factory.mktemp("site") / "playground.html"
    run_tool("playground", "--to", str(path))
    return path


@pytest.fixture
def visit(open_page, built):
    def visit(**context):
        page = open_page(built.as_uri(), **context)
        page.set_default_timeout(10_000)
        return page

    return visit


@pytest.fixture(scope="module")
def vae():
    return store.pretrained(models.VAE)


def drawn(page, what, inputs, size=32):
    """What window.gencourse draws, (N, 3, size, size) float32."""
    found = []
    for part in inputs.split(100):
        texts = page.evaluate(DRAW, [what, part.tolist(), size])
        found += [np.frombuffer(base64.b64decode(text), "<f4") for text in texts]
    return torch.from_numpy(np.stack(found)).view(len(inputs), 3, size, size)


def pixels(page, canvas):
    return page.evaluate(PIXELS, canvas)


def state(page):
    return page.evaluate("window.gencourse.state()")


def expected_pixels(page, what, values):
    """What a canvas shows for them: bytes of red, green, blue for each pixel."""
    image = drawn(page, what, torch.tensor([values], dtype=torch.float64))[0]
    return (255 * image.double()).round().permute(1, 2, 0).flatten().int().tolist()


def same(first, second):
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 1


# --- the same pictures as in Python ---------------------------------------------------


def test_decoder_agrees_with_torch(visit, vae):
    rng = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 2, (300, 10), generator=rng) * 6.0 - 3
    axes = torch.cat([3 * torch.eye(10), -3 * torch.eye(10), torch.zeros(1, 10)])
    z = torch.cat([vae.prior(300, rng), corners, axes])
    found = drawn(visit(), "decode", z)
    with torch.no_grad():
        difference = (found - vae.decode(z)).abs().max().item()
    print(f"decoder: largest difference {difference:.5f}")
    assert difference < CLOSE
    # All of it is the rounding of the weights: with rounded ones torch does the same.
    rounded = copy.deepcopy(vae).half().float()
    with torch.no_grad():
        assert torch.allclose(found, rounded.decode(z), atol=1e-5)


def test_half_precision_is_read_exactly(visit):
    numbers = np.arange(2**16, dtype="<u2").view("<f2")
    numbers = numbers[np.isfinite(numbers)]
    text = base64.b64encode(numbers.tobytes()).decode()
    found = visit().evaluate("(text) => Array.from(unpack(text))", text)
    assert np.array_equal(np.array(found), numbers.astype(np.float64))


@pytest.mark.parametrize(("size", "how_many"), [(32, 500), (33, 50), (128, 60)])
def test_renderer_agrees_with_python(visit, size, how_many):
    knobs = faces.sample_knobs(how_many, seed=2)
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))
    chosen = corners[:: 1 if size == 32 else 5]
    knobs = torch.cat([knobs, chosen, torch.zeros(1, 8)])
    found = drawn(visit(), "render", knobs, size)
    difference = (found - faces.render(knobs, size)).abs().max().item()
    print(f"renderer at {size}: largest difference {difference:.6f}")
    assert difference < CLOSE


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("decode([1, 2, 3])", "needs an array of 10 numbers, got 3 of them"),
        ("decode(Array(11).fill(0))", "needs an array of 10 numbers, got 11 of them"),
        ("decode()", "needs an array of 10 numbers, got undefined"),
        ("decode('0123456789')", "needs an array of 10 numbers, got 0123456789"),
        ("decode([0, 0, 0, NaN, 0, 0, 0, 0, 0, 0])", "finite numbers, got NaN at 3"),
        ("decode(Array(10).fill('1'))", "finite numbers, got 1 at 0"),
        ("decode(Array(10).fill(Infinity))", "finite numbers, got Infinity at 0"),
        ("render([0, 0])", "needs an array of 8 numbers, got 2 of them"),
        ("render(Array(8).fill(NaN))", "finite numbers, got NaN at 0"),
        ("render(Array(8).fill(0), 15)", "needs a whole size from 16 to 256, got 15"),
        ("render(Array(8).fill(0), 32.5)", "a whole size from 16 to 256, got 32.5"),
    ],
)
def test_wrong_input_is_refused_in_words(visit, call, says):
    script = f"try {{ window.gencourse.{call}; 'no error' }} catch (e) {{ `${{e}}` }}"
    message = visit().evaluate(script)
    assert says in message
    assert message.split(":")[0] in ("TypeError", "RangeError")


# --- one quiet file -------------------------------------------------------------------


def test_one_small_file_that_names_no_other_place(built):
    text = built.read_text(encoding="utf-8")
    assert 200_000 < len(text.encode()) < 1_000_000
    assert "://" not in text
    assert "{{" not in text


def test_nothing_but_the_page_is_loaded(visit):
    page = visit()
    script = "performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [
        name for name in page.evaluate(script) if not name.startswith("data:")
    ] == []


def test_links_lead_to_the_lesson_beside_it(visit):
    links = visit().eval_on_selector_all(
        "a", "all => all.map((a) => a.attributes.href.value)"
    )
    assert set(links) == {"index.html", "03_vae.html"}


# --- what the controls do -------------------------------------------------------------


def test_buttons_change_the_learned_face(visit):
    page = visit()
    start = pixels(page, "learned")
    assert same(start, expected_pixels(page, "decode", [0.0] * 10))
    page.get_by_role("button", name="Random face").click()
    first = pixels(page, "learned")
    assert not same(first, start)
    assert same(first, expected_pixels(page, "decode", state(page)["z"]))
    page.get_by_role("button", name="Random face").click()
    assert not same(pixels(page, "learned"), first)
    page.get_by_role("button", name="Reset to z = 0").click()
    assert state(page)["z"] == [0] * 10
    assert pixels(page, "learned") == start


def test_random_codes_are_normal(visit):
    page = visit()
    script = """Array.from({ length: 400 }, () => {
      document.getElementById("random-face").click();
      return window.gencourse.state().z;
    })"""
    z = torch.tensor(page.evaluate(script))  # 4000 numbers
    assert abs(z.mean()) < 0.1 and abs(z.std() - 1) < 0.08
    # Of N(0, 1), 68.3% and 95.4% lie within one and two standard deviations.
    for limit, share in ((1, 0.683), (2, 0.954)):
        assert abs((z.abs() < limit).double().mean() - share) < 0.04


def test_buttons_change_the_true_face(visit):
    page = visit()
    start = pixels(page, "true")
    assert same(start, expected_pixels(page, "render", [0.0] * 8))
    page.get_by_role("button", name="Random knobs").click()
    shown = pixels(page, "true")
    assert not same(shown, start)
    knobs = state(page)["knobs"]
    assert same(shown, expected_pixels(page, "render", knobs))
    assert all(-1 <= knob <= 1 for knob in knobs)
    page.get_by_label("128 × 128").check()
    assert len(pixels(page, "true")) == 3 * 128 * 128
    page.get_by_label("32 × 32").check()
    assert pixels(page, "true") == shown
    page.get_by_role("button", name="Reset to 0").click()
    assert pixels(page, "true") == start


def test_every_slider_obeys_the_keyboard(visit):
    page = visit()
    for canvas, group, count, step in (
        ("learned", "codes", 10, 0.1),
        ("true", "knobs", 8, 0.05),
    ):
        for j in range(count):
            before = pixels(page, canvas)
            page.locator(f"#{group}-{j + 1}").press("ArrowRight")
            values = state(page)["z" if group == "codes" else "knobs"]
            assert values[j] == pytest.approx(step)
            page.locator(f"#{group}-{j + 1}").press("End")
            assert pixels(page, canvas) != before
            assert page.locator(f"output[for={group}-{j + 1}]").inner_text() in (
                "3.00",
                "1.00",
            )


def test_times_are_measured(visit):
    page = visit()
    page.wait_for_timeout(500)
    for name in ("learned-ms", "true-ms"):
        milliseconds = float(page.locator(f"#{name}").inner_text())
        print(f"{name}: {milliseconds}")
        assert 0 < milliseconds < 200


# --- the walk -------------------------------------------------------------------------


def test_a_walk_begins_and_ends_at_its_faces(visit):
    page = visit()
    page.get_by_role("button", name="Walk between two faces").click()
    page.get_by_role("button", name="Stop").click()
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
    page.get_by_role("button", name="Walk between two faces").click()
    assert state(page)["ends"] != ends


def test_a_walk_plays_stops_and_goes_on(visit):
    page = visit()
    page.get_by_role("button", name="Walk between two faces").click()
    page.wait_for_timeout(600)
    page.get_by_role("button", name="Stop").click()
    held = state(page)["share"]
    assert 0 < held < 1
    page.wait_for_timeout(300)
    assert state(page)["share"] == held
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(300)
    assert state(page)["share"] > held
    page.locator("#codes-1").press("ArrowRight")  # a hand on a slider ends the walk
    assert page.get_by_role("button", name="Play").is_visible()
    held = state(page)["z"]
    page.wait_for_timeout(300)
    assert state(page)["z"] == held
    page.locator("#share").fill("0.95")
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Play").wait_for()
    assert state(page)["share"] == 1


def test_nothing_moves_by_itself_where_less_motion_is_wanted(visit):
    page = visit(reduced_motion="reduce")
    page.get_by_role("button", name="Walk between two faces").click()
    page.wait_for_timeout(400)
    assert state(page)["share"] == 0
    for tenths in (*range(1, 11), 0, 1):
        page.get_by_role("button", name="Next step").click()
        assert state(page)["share"] == pytest.approx(tenths / 10)
    page.wait_for_timeout(300)
    assert state(page)["share"] == pytest.approx(0.1)
    assert page.get_by_text("asks for less motion").is_visible()


def test_nothing_is_said_of_motion_otherwise(visit):
    assert not visit().get_by_text("asks for less motion").is_visible()


# --- for every reader -----------------------------------------------------------------


def test_everything_has_a_name(visit):
    page = visit()
    for j in range(10):
        assert page.get_by_role("slider", name=re.compile(rf"^z{j}\b")).count() == 1
    for name in faces.KNOB_NAMES:
        assert page.get_by_role("slider", name=name, exact=True).count() == 1
    assert page.get_by_role("slider").count() == 10 + len(faces.KNOBS) + 1
    assert page.get_by_role("img").count() == page.locator("canvas").count() == 4
    for canvas in page.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label")) > 20
    scripts = {
        "labels": "[...document.querySelectorAll('input')].map((i) => i.labels.length)",
        "ids": "[...document.querySelectorAll('[id]')].map((element) => element.id)",
    }
    assert set(page.evaluate(scripts["labels"])) == {1}
    ids = page.evaluate(scripts["ids"])
    assert len(ids) == len(set(ids))


def test_descriptions_follow_the_pictures(visit):
    page = visit()
    smile = page.get_by_role("slider", name="smile")
    smile.press("End")
    assert smile.get_attribute("aria-valuetext") == "1.00, smile"
    assert "smile: smile" in page.locator("#true").get_attribute("aria-label")
    smile.press("Home")
    assert smile.get_attribute("aria-valuetext") == "-1.00, frown"
    assert "smile: frown" in page.locator("#true").get_attribute("aria-label")
    page.locator("#codes-1").press("End")
    assert "z = (3.0, 0.0" in page.locator("#learned").get_attribute("aria-label")


def test_unused_dimensions_are_named_as_such_and_no_others(visit, vae):
    page = visit()
    model = json.loads(page.locator("#model").inner_text())
    x = faces.render(faces.sample_knobs(1000, seed=3))
    with torch.no_grad():
        mu, logvar = vae.encode(x)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (logvar / 2).exp()),
        torch.distributions.Normal(0, 1),
    ).mean(0)
    assert torch.allclose(torch.tensor(model["nats"]), kl, atol=0.1)
    unused = [f"z{j}" for j in range(10) if kl[j] < 0.01]
    assert 0 < len(unused) < 10, "the test needs a model with some of both kinds"
    labels = [label.inner_text() for label in page.locator("#codes label").all()]
    said = [label.split()[0] for label in labels if "unused by this model" in label]
    assert said == unused
    assert f"{' and '.join(unused)} are unused" in page.get_by_role("list").inner_text()


@pytest.mark.parametrize("width", [320, 360, 760, 1280])
def test_nothing_is_wider_than_the_window(visit, width):
    page = visit(viewport={"width": width, "height": 740})
    page.get_by_label("128 × 128").check()
    page.get_by_role("button", name="Random face").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for element in page.locator("input, button, canvas").all():
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


def test_dark_mode_is_dark(visit):
    def shades(scheme):
        page = visit(color_scheme=scheme)
        script = """[getComputedStyle(document.body).backgroundColor,
          getComputedStyle(document.body).color]"""
        found = [color[4:-1].split(",") for color in page.evaluate(script)]
        return [sum(map(float, color)) / 3 for color in found]

    ground, ink = shades("light")
    assert ground > 230 and ink < 60
    ground, ink = shades("dark")
    assert ground < 40 and ink > 200
