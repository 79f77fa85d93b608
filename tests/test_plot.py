"""plot: pixels at known places, alternative texts, fonts, and sliders that draw."""

import io
import re
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from gencourse import plot
from gencourse.plot.picture import _add_new_fonts

ALT = "A picture that a test has drawn."
NAMED = {"xlabel": "x", "alt": ALT}
RED, GREEN = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])


def pixels(picture: plot.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))


def flat(color: torch.Tensor, size: int = 32) -> torch.Tensor:
    return color[:, None, None].expand(-1, size, size)


def spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """Start and length of each run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0]))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def one_of_each() -> dict[str, plot.Picture]:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(4, 3, 8, 8, generator=rng), [3.0, 2.0, 1.0]
    logarithmic = {"log": True, "log_x": True}
    lines = {"hlines": {"h": 1.5}, "vlines": {"v": 2}}
    band = ([1, 2, 4], y, y, y)
    return {
        "grid": plot.grid(x, alt=ALT, title="A", row_labels=["b"]),
        "pairs": plot.pairs(x, x.flip(0), alt=ALT, difference=True),
        "curves": plot.curves(
            {"a": y, "b": band}, ylabel="y", **NAMED, **logarithmic, **lines
        ),
        "bars": plot.bars({"a": {"p": 1.0, "q": -2.0}, "b": {"q": 1}}, **NAMED),
        "histogram": plot.histogram({"a": x, "b": x[0]}, **NAMED),
        "heat": plot.heat([[1.0, 0.5]], ["r"], ["c", "d"], low=0, high=1, alt=ALT),
        "panels": plot.scatter_map(x[0, 0, :, :2], panels={"a": x[0, 0, 0]}, alt=ALT),
        "course": plot.map_of_the_course("generate", images=x),
        "turns": plot.two_players(),
        "vae": plot.vae_diagram(x[:1], x[:1]),
    }


@pytest.fixture(scope="module")
def pictures():
    return one_of_each()


# --- Picture --------------------------------------------------------------------------


def test_picture_carries_its_alt(tmp_path):
    picture = plot.grid(torch.rand(2, 1, 8, 8), alt=ALT + " π")
    image = Image.open(io.BytesIO(picture.png))
    assert image.text == {"Description": ALT + " π"}  # and no software, no date
    data, metadata = picture._repr_mimebundle_()
    assert data == {"image/png": picture.png, "text/plain": ALT + " π"}
    assert metadata == {"image/png": {"alt": ALT + " π"}}
    picture.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture.png


@pytest.mark.parametrize("alt", ["too short", " " * 30])
def test_alt_is_required(alt):
    with pytest.raises(ValueError, match="alt=.*sentence"):
        plot.grid(torch.rand(2, 1, 8, 8), alt=alt)


def test_every_picture_fits_the_page(pictures):
    for name, picture in pictures.items():
        image = pixels(picture)
        assert image.shape[1] <= 1000 and image.shape[2] == 3, name
        # nothing is cut off: the outermost pixels are white
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border > 250).all(), name


# --- settings and fonts ---------------------------------------------------------------


@pytest.fixture
def only_own_fonts(monkeypatch):
    """Hides the fonts of this machine, but for those that come with matplotlib."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.font_manager import fontManager

    own = matplotlib.get_data_path()
    fonts = [font for font in fontManager.ttflist if font.fname.startswith(own)]
    monkeypatch.setattr(fontManager, "ttflist", fonts)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    _add_new_fonts.cache_clear()


@pytest.fixture
def install(only_own_fonts, tmp_path, monkeypatch):
    """Installs a font that draws a black square for 猫, 狗 and each ASCII letter."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    def install(family: str, listed: bool = True) -> None:
        glyphs = dict.fromkeys([".notdef", "square"], TTGlyphPen(None).glyph())
        pen = TTGlyphPen(None)
        for i, corner in enumerate([(0, 0), (0, 800), (1000, 800), (1000, 0)]):
            (pen.lineTo if i else pen.moveTo)(corner)
        pen.closePath()
        glyphs["square"] = pen.glyph()
        font = FontBuilder(1000, isTTF=True)
        font.setupGlyphOrder(list(glyphs))
        letters = [*range(32, 127), ord("猫"), ord("狗")]
        font.setupCharacterMap(dict.fromkeys(letters, "square"))
        font.setupGlyf(glyphs)
        font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
        font.setupHorizontalHeader(ascent=800, descent=-200)
        font.setupNameTable({"familyName": family, "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / f"{family}.ttf")
        path = str(tmp_path / f"{family}.ttf")
        if listed:
            font_manager.fontManager.addfont(path)
        else:
            monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path])

    return install


def ink(picture: plot.Picture, gray: int) -> int:
    """How many pixels have exactly this gray: the inside of the font's squares."""
    return int((pixels(picture) == gray).all(2).sum())


def titled(*titles: str) -> plot.Picture:
    return plot.grid(torch.ones(len(titles), 1, 32, 32), alt=ALT, titles=titles)


def test_pictures_are_the_same_again_whatever_the_reader_sets(
    pictures, install, caplog
):
    import matplotlib

    install("Noto Sans CJK SC")
    own = {
        "axes.facecolor": "black",
        "font.size": 30,
        "font.family": "Noto Sans CJK SC",
    }
    with matplotlib.rc_context(own):
        kept = dict(matplotlib.rcParams)
        again = one_of_each()
        assert dict(matplotlib.rcParams) == kept
    assert [name for name in pictures if pictures[name].png != again[name].png] == []
    assert not caplog.records  # such as of a font without bold


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "family, settings",
    [
        ("A", {"font.family": ["A"]}),
        ("A", {"font.sans-serif": ["A"]}),
        ("Malgun Gothic", {}),
    ],
)
def test_chinese_is_written_with_a_font_that_has_it(install, family, settings, caplog):
    import matplotlib

    install(family)
    with matplotlib.rc_context(settings):
        title, wide = titled("猫狗"), titled(*["猫狗猫狗猫狗猫狗"] * 3)
        beside_formula = titled("猫狗 $x$")
        tick = plot.bars({"猫": 1.0}, xlabel="α", alt=ALT)
    side = 12 / 72 * 100  # pixels: the titles have 12 points, a glyph 1 x 0.8 of them
    for two in (title, beside_formula):
        assert ink(two, 0x22) > 2 * (side - 2) * (0.8 * side - 2)
    assert not caplog.records  # such as of a glyph that a formula lacks
    assert ink(tick, 0x44) > (side - 2) * (0.8 * side - 2)
    assert pixels(wide).shape[1] > 3 * 8 * side  # measured as it is drawn


@pytest.mark.parametrize(
    "draw",
    [
        lambda: titled("猫 α", "狗"),
        lambda: plot.bars({"狗猫": 1, "猫": 2}, xlabel="猫", alt=ALT),
    ],
)
def test_one_warning_names_all_characters_without_a_font(only_own_fonts, draw):
    with pytest.warns(UserWarning) as caught:
        draw()
    (warning,) = caught
    assert re.search("font.*狗猫:.*install.*restart", str(warning.message))


@pytest.mark.filterwarnings("error")
def test_a_font_installed_after_matplotlib_made_its_list_is_found(install):
    install("SimHei", listed=False)
    assert ink(titled("猫狗"), 0x22) > 0


@pytest.mark.filterwarnings("error")
def test_a_font_that_the_reader_gives_a_text_is_no_missing_font(install, tmp_path):
    install("Given")
    with plot.canvas(ALT) as page:
        page.axes[0].text(0, 0, "猫", fontfamily="Given")
        page.axes[0].text(0, 1, "狗", font=tmp_path / "Given.ttf")


def test_pyplot_is_never_loaded_and_import_is_light():
    code = (
        "import sys; from gencourse import plot\n"
        "assert not {'matplotlib', 'ipywidgets', 'PIL'} & set(sys.modules)\n"
        f"plot.curves({{'a': [1, 2]}}, xlabel='x', ylabel='y', alt={ALT!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- images ---------------------------------------------------------------------------


def test_grid_draws_each_pixel_as_a_whole_square():
    image = torch.zeros(3, 32, 32)
    image[0, 5, 7] = 1.0  # one red pixel in row 5, column 7
    picture = plot.grid([image, image], alt=ALT, scale=3)
    red = (pixels(picture) == (255, 0, 0)).all(2)
    left, top, pitch = 8, 8, 32 * 3 + 6
    assert spans(red.any(0)) == [(left + 21, 3), (left + pitch + 21, 3)]
    assert spans(red.any(1)) == [(top + 15, 3)]
    assert red.sum() == 2 * 9


def test_grid_order_labels_and_automatic_scale():
    colors = [RED, GREEN, GREEN, RED]
    picture = plot.grid(
        torch.stack([flat(c) for c in colors]).reshape(2, 2, 3, 32, 32),
        alt=ALT,
        row_labels=["first", "second"],
        column_labels=["-1", "+1"],
    )
    image = pixels(picture)
    red = (image == (255, 0, 0)).all(2)
    (x0, w0), (x1, _) = spans(red.any(0))
    (y0, h0), (y1, _) = spans(red.any(1))
    assert (w0, h0, x1 - x0, y1 - y0) == (96, 96, 102, 102)  # 32 pixels drawn 3 wide
    assert red[y0, x0] and red[y1, x1] and not red[y0, x1]
    assert (image[y0 : y0 + 96, : x0 - 2] < 100).any()  # the label stands at the left
    assert (image[: y0 - 2, x0 : x0 + 96] < 100).any()  # and one above


def test_grid_averages_where_images_are_too_large():
    checkers = (torch.arange(512)[:, None] + torch.arange(512)) % 2
    x = checkers.float().expand(4, 1, 512, 512)
    image = pixels(plot.grid(x, alt=ALT))
    assert image.shape[1] <= 1000 and (image[100, 20:100] == 128).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_grid_takes_gray_gradients_numpy_and_other_floats(dtype):
    x = torch.full((2, 1, 8, 8), 0.5, dtype=dtype, requires_grad=True)
    for images in (x, list(x), x.detach().float().numpy()):
        assert (pixels(plot.grid(images, alt=ALT))[40, 20:60] == 128).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_grid_takes_images_from_a_gpu():
    x = torch.rand(2, 3, 8, 8)
    assert plot.grid([x[0].cuda(), x[1]], alt=ALT).png == plot.grid(x, alt=ALT).png


def test_small_overshoot_is_clipped():
    x = torch.tensor([1.3, -0.3])[:, None, None, None].expand(2, 3, 8, 8)
    assert plot.grid(x, alt=ALT).png == plot.grid(x.clamp(0, 1), alt=ALT).png


@pytest.mark.parametrize(
    "images, options, error, message",
    [
        (torch.rand(2, 4, 8, 8), {}, ValueError, r"\(2, 4, 8, 8\)"),
        (torch.full((1, 3, 8, 8), torch.nan), {}, ValueError, "192 .*NaN"),
        (torch.full((1, 3, 8, 8), 7.0), {}, ValueError, "from 7 to 7.*sigmoid"),
        (torch.ones(1, 3, 8, 8, dtype=torch.uint8), {}, TypeError, "uint8.*255"),
        (torch.rand(2, 3, 8, 8), {"titles": ["a"]}, ValueError, "titles: expected 2"),
        (torch.rand(8, 3, 64, 64), {"scale": 9}, ValueError, "fewer rows"),
    ],
)
def test_grid_says_what_is_wrong(images, options, error, message):
    with pytest.raises(error, match=message):
        plot.grid(images, alt=ALT, **options)


def test_pairs_show_where_the_difference_is():
    x = torch.full((2, 3, 8, 8), 0.5)
    x_hat = x.clone()
    x_hat[1] -= 0.2
    image = pixels(plot.pairs(x, x_hat, alt=ALT, difference=True))
    row = image[-60, -206:]  # a line through the last row: none, then all
    assert (row[:96] == 0).all() and (row[102:198] == 255).all()
    assert len(image) > len(pixels(plot.pairs(x, x_hat, alt=ALT))) + 96
    with pytest.raises(ValueError, match="differ"):
        plot.pairs(x, x_hat[:1], alt=ALT)


# --- numbers --------------------------------------------------------------------------


@pytest.fixture
def axes_of(monkeypatch):
    """Draws a chart and gives its matplotlib axes."""
    pages, canvas = [], plot.canvas

    @contextmanager
    def spy(*args, **options):
        with canvas(*args, **options) as page:
            pages.append(page)
            yield page

    def draw(chart, *args, **options) -> list:
        chart(*args, alt=ALT, **options)
        return pages[-1].axes

    monkeypatch.setattr(plot.charts, "canvas", spy)
    return draw


def test_curves_draw_the_numbers_and_their_band(axes_of):
    y = torch.tensor([4.0, 2.0, 1.0], requires_grad=True)
    series = {"loss": y, "other": ([0, 2], [1, 2], [0.5, 1.5], [1.5, 2.5])}
    lines = {"true": 8}
    (axes,) = axes_of(plot.curves, series, xlabel="x", ylabel="y", hlines=lines)
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(1, 4), (2, 2), (3, 1)])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [(0, 1), (2, 2)])
    band = axes.collections[0].get_paths()[0].vertices
    assert {(0, 0.5), (0, 1.5), (2, 1.5), (2, 2.5)} <= set(map(tuple, band))
    assert axes.lines[2].get_ydata()[0] == 8
    assert {text.get_text() for text in axes.texts} == {"loss", "other", "true"}


@pytest.mark.parametrize("first", [0.0, 0.5, 3.0])  # names crowd above, between, below
def test_names_beside_curves_never_overlap_nor_leave_the_axes(axes_of, first):
    series = {f"line {k}": [first, 1.0 + 1e-3 * k] for k in range(8)}
    (axes,) = axes_of(plot.curves, series, xlabel="x", ylabel="y")
    boxes = sorted((t.get_window_extent() for t in axes.texts), key=lambda b: b.y0)
    assert all(a.y1 <= b.y0 for a, b in zip(boxes, boxes[1:], strict=False))
    assert boxes[0].y0 > 0 and boxes[-1].y1 < axes.figure.bbox.height
    names = [t.get_text() for t in sorted(axes.texts, key=lambda t: t.xy[1])]
    assert names == list(series)


@pytest.mark.parametrize(
    "series, message",
    [
        ({}, "1 to 8"),
        ([1, 2], "got list"),
        ({"a": [float("nan")]}, "finite"),
        ({"a": ([1, 2], [1])}, r"lengths \[2, 1\]"),
        ({"a": [1.0, 0.0]}, "'a': 0"),
    ],
)
def test_curves_say_what_is_wrong(series, message):
    with pytest.raises(ValueError, match=message):
        plot.curves(series, ylabel="y", log=True, **NAMED)


def test_bars_are_as_long_as_their_numbers(axes_of):
    values = {"AE": {"near": 0.5, "far": 2.0}, "VAE": {"far": -1.0}}
    (axes,) = axes_of(plot.bars, values, xlabel="m", errors={"AE": {"far": 0.25}})
    lengths = [bar.get_width() for bar in axes.patches if bar.get_width()]
    assert lengths == [0.5, 2.0, -1.0]
    assert [text.get_text() for text in axes.texts] == ["0.5", "2", "−1"]
    assert axes.texts[1].xy[0] == 2.25  # beyond the interval
    with pytest.raises(ValueError, match="'b'.*nan"):
        plot.bars({"a": 1, "b": float("nan")}, **NAMED)


@pytest.mark.parametrize("bins", [40, np.linspace(0, 10, 21)])
def test_histogram_areas_are_one(axes_of, bins):
    data = {"a": torch.rand(5, 40) + 0.01, "b": torch.rand(70) * 9 + 0.01}
    (axes,) = axes_of(plot.histogram, data, xlabel="x", bins=bins)
    for steps in axes.patches:
        density, edges, _ = steps.get_data()
        assert np.sum(density * np.diff(edges)) == pytest.approx(1)


def test_heat_writes_its_numbers(axes_of):
    matrix = torch.tensor([[0.25, float("nan")], [-1.0, 1.0]])
    axes = axes_of(plot.heat, matrix, ["a", "b"], ["c", "d"], low=0.0, high=1.0)[0]
    texts = {t.get_position(): t.get_text() for t in axes.texts}
    assert texts == {(0.5, 0.5): "0.25", (0.5, 1.5): "−1.00", (1.5, 1.5): "1.00"}


def test_scatter_map_panels_share_one_scale(axes_of):
    points = torch.rand(9, 2)
    colors = {"a": torch.zeros(9), "b": torch.full((9,), 5.0)}
    panels = axes_of(plot.scatter_map, points, panels=colors)
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b"]
    for axes in panels:
        marks = axes.collections[0]
        assert marks.get_clim() == (0, 5)
        np.testing.assert_allclose(marks.get_offsets(), points)
    with pytest.raises(ValueError, match=r"got \(9, 3\)"):
        plot.scatter_map(torch.rand(9, 3), panels=colors, alt=ALT)


def test_canvas_gives_its_picture_only_when_drawn():
    with plot.canvas(ALT, rows=2, columns=3, width=500, height=300) as page:
        assert len(page.axes) == 6 and not hasattr(page, "picture")
    assert pixels(page.picture).shape == (300, 500, 3)
    with pytest.raises(ValueError, match="1200 x 400"), plot.canvas(ALT, width=1200):
        pass


@pytest.mark.parametrize(
    "highlight, seen",
    [("both", [True, True]), ("compress", [True, False]), ("generate", [False, True])],
)
def test_map_of_the_course(highlight, seen):
    picture = plot.map_of_the_course(
        highlight, images=torch.zeros(5, 1, 48, 48), numbers=(3072, 16)
    )
    arrows = [(0, 0x72, 0xB2), (0xD5, 0x5E, 0)]  # blue and orange, or pale
    counts = [(pixels(picture) == color).all(2).sum() for color in arrows]
    assert [count > 500 for count in counts] == seen
    for text in (f"highlighted: {highlight}", "space, 3,072", "space, 16"):
        assert text in picture.alt


def test_map_of_the_course_names_an_unknown_arrow():
    with pytest.raises(ValueError, match="highlight='up'.*compress"):
        plot.map_of_the_course("up", images=torch.zeros(5, 1, 56, 56))


def test_two_players_has_a_color_for_each_turn():
    picture = plot.two_players()
    for color in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0)):  # who learns, and its gradient
        assert (pixels(picture) == color).all(2).sum() > 5000
    assert "cut" in picture.alt


# --- sliders --------------------------------------------------------------------------


def gray(values: list[float]) -> torch.Tensor:
    gray.calls.append(values)
    if values[0] > 0.9:
        raise RuntimeError("too <far>")
    return torch.full((1, 16, 16), (values[0] + 1) / 2)


@pytest.fixture
def sliders(pictures):
    gray.calls = []
    names = ["light", ("step", 0, 10, 3, 1)]
    return plot.explorer(gray, names, alt=ALT, twin=pictures["grid"])


def shown(explorer) -> int:
    return int(np.asarray(Image.open(io.BytesIO(explorer.image.value)))[0, 0, 0])


def buttons(explorer) -> list:
    return explorer.widget.children[0].children[0].children[-1].children


def test_a_slider_redraws_the_image(sliders):
    assert gray.calls == [[0.0, 3.0]] and shown(sliders) == 128
    sliders.sliders[0].value = -1.0
    assert gray.calls[1:] == [[-1.0, 3.0]] and shown(sliders) == 0
    assert [s.description for s in sliders.sliders] == ["light", "step"]
    assert Image.open(io.BytesIO(sliders.image.value)).size == (320, 320)


def test_set_random_and_reset_draw_once(sliders):
    sliders.set([0.5, 99])  # no farther than the slider goes
    assert gray.calls[1:] == [[0.5, 10.0]] and shown(sliders) == 191
    random, reset = buttons(sliders)
    reset.click()
    assert gray.calls[2:] == [[0.0, 3.0]] and shown(sliders) == 128
    random.click()
    assert len(gray.calls) == 4
    light, step = gray.calls[3]
    assert -1 <= light <= 1 and step in range(11)
    with pytest.raises(ValueError, match="shorter"):
        sliders.set([0])
    sliders.sliders[0].value = -1.0  # and it still draws
    assert shown(sliders) == 0


def test_an_error_while_sliding_is_shown_and_goes_away(sliders):
    sliders.sliders[0].value = 1.0
    assert "RuntimeError: too &lt;far&gt;" in sliders.message.value
    assert shown(sliders) == 128  # the last good image stays
    sliders.sliders[0].value = 0.0
    assert sliders.message.value == ""


def test_explorer_offers_the_widget_and_the_twin(sliders, pictures):
    data, _ = sliders._repr_mimebundle_()
    widget = "application/vnd.jupyter.widget-view+json"
    assert set(data) == {"text/plain", "image/png", widget}
    assert data["text/plain"] == ALT
    assert data["image/png"] == pictures["grid"].png
    assert data[widget]["model_id"] == sliders.widget.model_id


def test_explorer_may_draw_pictures_and_sample_values(pictures):
    def draw(values: list[float]) -> plot.Picture:
        return pictures["bars" if values[0] < 0 else "heat"]

    explorer = plot.explorer(
        draw, ["a"], alt=ALT, twin=pictures["grid"], sample=lambda: [-1.0]
    )
    assert explorer.image.value == pictures["heat"].png
    buttons(explorer)[0].click()
    assert explorer.values == [-1.0]
    assert explorer.image.value == pictures["bars"].png


# --- folds ----------------------------------------------------------------------------
def test_a_fold_is_closed_and_stored_with_its_content():
    picture = plot.Picture(b"png", "A curve & its tangent.")
    for content, inside in (("a < b", "a &lt; b"), (picture, "A curve &amp; its")):
        fold = plot.Folded("Look <here>", content)
        assert fold.page.startswith("<details><summary")
        assert "Look &lt;here&gt;" in fold.page and inside in fold.page
        data, _ = fold._repr_mimebundle_()
        assert data["text/plain"] == getattr(content, "alt", content)
        assert data.get("image/png") == getattr(content, "png", None)
        assert "application/vnd.jupyter.widget-view+json" in data
    assert "data:image/png;base64,cG5n" in fold.page


def test_a_chart_has_a_palette_that_keeps_light_grays():
    ramp = np.repeat(np.arange(236, 256, dtype=np.uint8), 30).reshape(1, 600, 1)
    chart = np.broadcast_to(ramp, (50, 600, 3))
    kept = pixels(plot.picture.encode(chart, ALT, chart=True)).astype(int)
    assert np.abs(kept - chart).max() <= 2
    noise = np.random.default_rng(0).integers(0, 256, (50, 600, 3), dtype=np.uint8)
    assert (pixels(plot.picture.encode(noise, ALT, chart=True)) == noise).all()
