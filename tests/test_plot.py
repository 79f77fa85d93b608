"""plot: pixels at known places, alternative texts, errors, and sliders that draw."""

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

ALT = "A picture that a test has drawn."
RED, GREEN = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])


def pixels(picture: plot.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)))


def flat(color: torch.Tensor, size: int = 32) -> torch.Tensor:
    return color[:, None, None].expand(-1, size, size)


def spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """Start and length of each run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0]))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def small_pictures() -> dict[str, plot.Picture]:
    x, y = torch.rand(4, 3, 8, 8), [3.0, 2.0, 1.0]
    points = torch.randn(30, 2)
    return {
        "grid": plot.grid(x, alt=ALT, title="A", row_labels=["b"]),
        "pairs": plot.pairs(x, x.flip(0), alt=ALT, difference=True),
        "curves": plot.curves(
            {"a": y, "b": ([1, 2, 4], y, y, y)},
            xlabel="x",
            ylabel="y",
            alt=ALT,
            log=True,
            log_x=True,
            hlines={"h": 1.5},
            vlines={"v": 2},
        ),
        "bars": plot.bars(
            {"a": {"p": 1.0, "q": -2.0}, "b": {"q": 1}}, xlabel="m", alt=ALT
        ),
        "histogram": plot.histogram(
            {"a": torch.rand(50) + 0.1, "b": torch.rand(9) + 0.1},
            xlabel="x",
            alt=ALT,
            log_x=True,
        ),
        "heat": plot.heat([[1.0, -1.0]], ["r"], ["c", "d"], alt=ALT),
        "map": plot.scatter_map(points, points[:, 0], alt=ALT),
        "classes": plot.scatter_map(points, (points[:, 0] > 0).long(), alt=ALT),
        "panels": plot.scatter_map(points, panels={"a": points[:, 0]}, alt=ALT),
        "plain": plot.scatter_map(points, alt=ALT),
        "course": plot.map_of_the_course("generate", torch.rand(3, 1, 32, 32)),
    }


# --- Picture --------------------------------------------------------------------------


def test_picture_knows_its_size_and_carries_its_alt(tmp_path):
    picture = plot.grid(torch.rand(2, 1, 8, 8), alt=ALT + " π")
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height)
    assert image.text == {"Description": ALT + " π"}  # and no software, no date
    data, metadata = picture._repr_mimebundle_()
    assert data == {"image/png": picture.png, "text/plain": ALT + " π"}
    assert metadata == {"image/png": {"alt": ALT + " π"}}
    picture.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture.png


@pytest.mark.parametrize("alt", ["", "too short", " " * 30, None])
def test_alt_is_required(alt):
    with pytest.raises(ValueError, match="alt=.*sentence"):
        plot.grid(torch.rand(2, 1, 8, 8), alt=alt)


def test_every_picture_is_the_same_again_and_fits_the_page():
    torch.manual_seed(0)
    first = small_pictures()
    torch.manual_seed(0)
    again = small_pictures()
    for name, picture in first.items():
        assert picture.png == again[name].png, name
        assert 100 <= picture.width <= plot.MAX_WIDTH, name
        image = pixels(picture)
        assert image.shape[2] == 3, name
        # nothing is cut off: the outermost pixels are white
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border > 250).all(), name


def test_settings_of_the_reader_neither_change_nor_matter():
    import matplotlib

    before = plot.curves({"a": [1, 2]}, xlabel="x", ylabel="y", alt=ALT).png
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        kept = dict(matplotlib.rcParams)
        assert plot.curves({"a": [1, 2]}, xlabel="x", ylabel="y", alt=ALT).png == before
        assert dict(matplotlib.rcParams) == kept


# --- fonts ----------------------------------------------------------------------------


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Installs a font that draws a black square for 猫, 狗 and each ASCII letter."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib.font_manager import fontManager

    def install(family: str) -> None:
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
        monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
        fontManager.addfont(tmp_path / f"{family}.ttf")

    return install


def black(picture: plot.Picture) -> int:
    """Pixels of the ink of titles: our generated font fills whole squares with it."""
    return int((pixels(picture) == 0x22).all(2).sum())


def titled(*titles: str) -> plot.Picture:
    return plot.grid(torch.ones(len(titles), 1, 32, 32), alt=ALT, titles=titles)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "family, settings",
    [
        ("Font of the reader", {"font.family": ["Font of the reader"]}),
        ("Font of the reader", {"font.sans-serif": ["Font of the reader"]}),
        ("Font of the reader", {"font.family": "serif", "font.serif": "Font of the reader"}),
        ("Malgun Gothic", {}),
    ],
)
def test_chinese_is_written_with_a_font_that_has_it(install, family, settings):
    import matplotlib

    install(family)
    with matplotlib.rc_context(settings):
        # 12 points are 16.7 pixels: the squares are 16.7 wide and 13.3 high.
        assert black(titled("猫狗")) > 1.8 * 15 * 12
        wide = titled(*["猫狗" * 4] * 3)
        picture = plot.bars({"猫": 1.0}, xlabel="α", alt=ALT)
    assert wide.width > 3 * 8 * 16.7  # measured in the font that writes it
    ink = (pixels(picture)[:, :40] == 0x22).all(2)
    tick = (pixels(picture)[:, :40] == 0x44).all(2)
    assert (ink | tick).sum() > 15 * 12


def test_english_is_the_same_whatever_fonts_there_are(install):
    import matplotlib

    def draw() -> list[bytes]:
        torch.manual_seed(0)
        return [picture.png for picture in small_pictures().values()]

    before = draw()
    install("Noto Sans CJK SC")
    with matplotlib.rc_context({"font.family": ["Noto Sans CJK SC"]}):
        assert draw() == before


@pytest.mark.parametrize("draw", [lambda: titled("猫 α", "狗"), lambda: plot.bars({"狗猫": 1, "猫": 2}, xlabel="猫", alt=ALT)])
def test_one_warning_names_all_characters_without_a_font(draw):
    with pytest.warns(UserWarning) as caught:
        draw()
    (warning,) = caught
    assert re.search("font.*狗猫:.*install", str(warning.message))


@pytest.mark.filterwarnings("error")
def test_a_font_that_the_reader_gives_a_text_is_kept(install, tmp_path):
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
    picture = plot.grid(x, alt=ALT)
    assert picture.width <= plot.MAX_WIDTH
    assert (pixels(picture)[100, 20:100] == 128).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_grid_takes_gray_gradients_numpy_and_other_floats(dtype):
    x = torch.full((2, 1, 8, 8), 0.5, dtype=dtype, requires_grad=True)
    assert (pixels(plot.grid(x, alt=ALT))[40, 20:60] == 128).all()
    x = x.detach().float().numpy()
    assert (pixels(plot.grid(x, alt=ALT))[40, 20:60] == 128).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_grid_takes_images_from_a_gpu():
    x = torch.rand(2, 3, 8, 8)
    assert plot.grid(x.cuda(), alt=ALT).png == plot.grid(x, alt=ALT).png


def test_small_overshoot_is_clipped():
    x = torch.tensor([1.3, -0.3])[:, None, None, None].expand(2, 3, 8, 8)
    white = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 3, 8, 8)
    assert plot.grid(x, alt=ALT).png == plot.grid(white, alt=ALT).png


@pytest.mark.parametrize(
    "images, options, error, message",
    [
        (torch.rand(2, 4, 8, 8), {}, ValueError, r"\(2, 4, 8, 8\)"),
        (torch.rand(0, 3, 8, 8), {}, ValueError, r"\(0, 3, 8, 8\)"),
        (torch.full((1, 3, 8, 8), torch.nan), {}, ValueError, "192 values are NaN"),
        (torch.full((1, 3, 8, 8), 7.0), {}, ValueError, "logits need a sigmoid"),
        (torch.ones(1, 3, 8, 8, dtype=torch.uint8), {}, TypeError, "divide by 255"),
        ([torch.rand(3, 8, 8), torch.rand(1, 8, 8)], {}, ValueError, "one shape"),
        (torch.rand(2, 3, 8, 8), {"titles": ["a"]}, ValueError, "titles: expected 2"),
        (torch.rand(2, 3, 8, 8), {"row_labels": "ab"}, ValueError, "expected 1"),
        (torch.rand(2, 3, 8, 8), {"scale": 0}, ValueError, "scale=0"),
        (
            torch.rand(8, 3, 64, 64),
            {"scale": 9},
            ValueError,
            "take fewer rows, columns",
        ),
        (torch.rand(400, 3, 32, 32), {}, ValueError, "take fewer rows, columns"),
    ],
)
def test_grid_says_what_is_wrong(images, options, error, message):
    with pytest.raises(error, match=message):
        plot.grid(images, alt=ALT, **options)


def test_pairs_show_where_the_difference_is():
    x = torch.full((2, 3, 8, 8), 0.5)
    x_hat = x.clone()
    x_hat[1] -= 0.2
    picture = plot.pairs(x, x_hat, alt=ALT, difference=True)
    row = pixels(picture)[-60, -206:]  # a line through the last row: none, then all
    assert (row[:96] == 0).all() and (row[102:198] == 255).all()
    assert picture.height > plot.pairs(x, x_hat, alt=ALT).height + 96
    with pytest.raises(ValueError, match="differ"):
        plot.pairs(x, x_hat[:1], alt=ALT)


# --- numbers --------------------------------------------------------------------------


def axes_of(monkeypatch, draw) -> list:
    """The matplotlib axes that a plot function has drawn on."""
    pages, canvas = [], plot.canvas

    @contextmanager
    def spy(*args, **options):
        with canvas(*args, **options) as page:
            pages.append(page)
            yield page

    monkeypatch.setattr(plot.charts, "canvas", spy)
    draw()
    return pages[-1].axes


def test_curves_draw_the_numbers_and_their_band(monkeypatch):
    y = torch.tensor([4.0, 2.0, 1.0], requires_grad=True)
    series = {"loss": y, "other": ([0, 2], [1, 2], [0.5, 1.5], [1.5, 2.5])}
    (axes,) = axes_of(
        monkeypatch,
        lambda: plot.curves(
            series, xlabel="epoch", ylabel="error", alt=ALT, hlines={"true": 8}
        ),
    )
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(1, 4), (2, 2), (3, 1)])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [(0, 1), (2, 2)])
    band = axes.collections[0].get_paths()[0].vertices
    assert {(0, 0.5), (0, 1.5), (2, 1.5), (2, 2.5)} <= set(map(tuple, band))
    assert axes.lines[2].get_ydata()[0] == 8
    assert {text.get_text() for text in axes.texts} == {"loss", "other", "true"}


@pytest.mark.parametrize("first", [0.0, 0.5, 3.0])  # names crowd above, between, below
def test_names_beside_curves_never_overlap_nor_leave_the_axes(monkeypatch, first):
    series = {f"line {k}": [first, 1.0 + 1e-3 * k] for k in range(8)}
    (axes,) = axes_of(
        monkeypatch, lambda: plot.curves(series, xlabel="x", ylabel="y", alt=ALT)
    )
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
        ({"a": []}, "'a'"),
        ({"a": [float("nan")]}, "not one finite"),
        ({"a": ([1, 2], [1])}, r"lengths \[2, 1\]"),
        ({"a": [1.0, 0.0]}, "no logarithm"),
    ],
)
def test_curves_say_what_is_wrong(series, message):
    with pytest.raises(ValueError, match=message):
        plot.curves(series, xlabel="x", ylabel="y", alt=ALT, log=True)


def test_bars_are_as_long_as_their_numbers(monkeypatch):
    values = {"AE": {"near": 0.5, "far": 2.0}, "VAE": {"far": -1.0}}
    (axes,) = axes_of(
        monkeypatch,
        lambda: plot.bars(values, xlabel="m", alt=ALT, errors={"AE": {"far": 0.25}}),
    )
    lengths = [bar.get_width() for bar in axes.patches if bar.get_width()]
    assert lengths == [0.5, 2.0, -1.0]
    assert [text.get_text() for text in axes.texts] == ["0.5", "2", "−1"]
    assert axes.texts[1].xy[0] == 2.25  # beyond the interval
    with pytest.raises(ValueError, match="'b'.*nan"):
        plot.bars({"a": 1, "b": float("nan")}, xlabel="m", alt=ALT)


@pytest.mark.parametrize("log_x", [False, True])
def test_histogram_areas_are_one(monkeypatch, log_x):
    torch.manual_seed(0)
    data = {"a": torch.rand(5, 40) + 0.01, "b": torch.rand(70) * 9 + 0.01}
    (axes,) = axes_of(
        monkeypatch, lambda: plot.histogram(data, xlabel="x", alt=ALT, log_x=log_x)
    )
    for steps in axes.patches:
        density, edges, _ = steps.get_data()
        edges = np.log10(edges) if log_x else edges
        assert np.sum(density * np.diff(edges)) == pytest.approx(1)


def test_heat_writes_its_numbers(monkeypatch):
    matrix = torch.tensor([[0.25, float("nan")], [-1.0, 1.0]])
    axes = axes_of(
        monkeypatch, lambda: plot.heat(matrix, ["a", "b"], ["c", "d"], alt=ALT)
    )[0]
    texts = {t.get_position(): t.get_text() for t in axes.texts}
    assert texts == {(0.5, 0.5): "0.25", (0.5, 1.5): "−1.00", (1.5, 1.5): "1.00"}
    with pytest.raises(ValueError, match="column_labels: expected 2"):
        plot.heat(matrix, ["a", "b"], ["c"], alt=ALT)


def test_scatter_map_panels_share_one_scale(monkeypatch):
    points, low, high = torch.rand(9, 2), torch.zeros(9), torch.full((9,), 5.0)
    panels = axes_of(
        monkeypatch,
        lambda: plot.scatter_map(points, panels={"a": low, "b": high}, alt=ALT),
    )
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b"]
    for axes in panels:
        marks = axes.collections[0]
        assert marks.get_clim() == (0, 5)
        np.testing.assert_allclose(marks.get_offsets(), points)
    with pytest.raises(ValueError, match=r"\(8,\) for 9 points"):
        plot.scatter_map(points, torch.rand(8), alt=ALT)
    with pytest.raises(ValueError, match=r"got \(9, 3\)"):
        plot.scatter_map(torch.rand(9, 3), alt=ALT)


def test_scatter_map_names_classes(monkeypatch):
    points, classes = torch.rand(4, 2), torch.tensor([2, 0, 2, 0])
    (axes,) = axes_of(
        monkeypatch,
        lambda: plot.scatter_map(
            points, classes, names=["zero", "one", "two"], alt=ALT
        ),
    )
    assert axes.get_legend_handles_labels()[1] == ["zero", "two"]
    np.testing.assert_allclose(axes.collections[1].get_offsets(), points[::2])


def test_canvas_gives_its_picture_only_when_drawn():
    with plot.canvas(ALT, rows=2, columns=3, width=500, height=300) as page:
        assert len(page.axes) == 6 and not hasattr(page, "picture")
    assert (page.picture.width, page.picture.height) == (500, 300)
    with pytest.raises(ValueError, match="1200 x 400"), plot.canvas(ALT, width=1200):
        pass


def test_map_of_the_course():
    pictures = {
        name: plot.map_of_the_course(name) for name in ("both", "compress", "generate")
    }
    blue, orange = (0, 0x72, 0xB2), (0xD5, 0x5E, 0)
    seen = {
        name: tuple((pixels(p) == color).all(2).sum() > 500 for color in (blue, orange))
        for name, p in pictures.items()
    }
    assert seen == {
        "both": (True, True),
        "compress": (True, False),
        "generate": (False, True),
    }
    assert "Highlighted: compress" in pictures["compress"].alt
    with pytest.raises(ValueError, match="highlight='up'"):
        plot.map_of_the_course("up")


# --- sliders --------------------------------------------------------------------------


def gray(values: list[float]) -> torch.Tensor:
    gray.calls.append(values)
    if values[0] > 0.9:
        raise RuntimeError("too <far>")
    return torch.full((1, 16, 16), (values[0] + 1) / 2)


@pytest.fixture
def sliders():
    gray.calls = []
    return plot.explorer(gray, ["light", ("step", 0, 10, 3, 1)], alt=ALT)


def shown(explorer) -> int:
    return int(np.asarray(Image.open(io.BytesIO(explorer.image.value)))[0, 0, 0])


def test_a_slider_redraws_the_image(sliders):
    assert gray.calls == [[0.0, 3.0]] and shown(sliders) == 128
    sliders.sliders[0].value = -1.0
    assert gray.calls[1:] == [[-1.0, 3.0]] and shown(sliders) == 0
    assert [s.description for s in sliders.sliders] == ["light", "step"]
    assert Image.open(io.BytesIO(sliders.image.value)).size == (320, 320)


def test_set_random_and_reset_draw_once(sliders):
    sliders.set([0.5, 99])  # no farther than the slider goes
    assert gray.calls[1:] == [[0.5, 10.0]] and shown(sliders) == 191
    random, reset = sliders.widget.children[0].children[0].children[-1].children
    reset.click()
    assert gray.calls[2:] == [[0.0, 3.0]] and shown(sliders) == 128
    random.click()
    assert len(gray.calls) == 4
    light, step = gray.calls[3]
    assert -1 <= light <= 1 and step in range(11)
    with pytest.raises(ValueError, match="expected 2"):
        sliders.set([0])


def test_an_error_while_sliding_is_shown_and_goes_away(sliders):
    sliders.sliders[0].value = 1.0
    assert "RuntimeError: too &lt;far&gt;" in sliders.message.value
    assert shown(sliders) == 128  # the last good image stays
    sliders.sliders[0].value = 0.0
    assert sliders.message.value == ""


def test_explorer_offers_the_widget_and_the_twin(sliders):
    data, _ = sliders._repr_mimebundle_()
    widget = "application/vnd.jupyter.widget-view+json"
    assert set(data) == {"text/plain", "image/png", widget}
    assert data["text/plain"] == ALT
    assert data[widget]["model_id"] == sliders.widget.model_id
    twin = plot.grid(torch.rand(2, 1, 8, 8), alt=ALT + " It is the twin.")
    other = plot.explorer(gray, ["light"], alt=ALT, twin=twin, sample=lambda: [-1.0])
    assert other._repr_mimebundle_()[0]["image/png"] == twin.png
    other.widget.children[0].children[0].children[-1].children[0].click()
    assert other.values == [-1.0]


def test_explorer_may_draw_pictures_and_checks_its_sliders():
    explorer = plot.explorer(
        lambda v: plot.bars({"a": v[0]}, xlabel="x", alt=ALT), ["a"], alt=ALT
    )
    before = explorer.image.value
    explorer.set([1.0])
    assert explorer.image.value != before
    with pytest.raises(ValueError, match="slider 'a': 2"):
        plot.explorer(gray, [("a", 0, 1, 2)], alt=ALT)
    with pytest.raises(ValueError, match="alt="):
        plot.explorer(gray, ["a"], alt="short")
