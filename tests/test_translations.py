"""The catalogs of translations, and what is made with them.

A text that is missing or fuzzy fails no test: readers get it in English.
"""

import io
import os
import re

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.publish import deck, notebooks, translations
from tools.publish.translations import Text, faults, updated

CATALOGS = sorted(
    [*translations.TEXTS.glob("*/*.po"), *translations.SPOKEN.glob("*/*.po")]
)


# --- what translators wrote -----------------------------------------------------------


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.stem)
def test_formulas_links_numbers_and_code_are_those_of_the_source(path):
    catalog = translations.read(path, path.parent.name)
    wrong = {
        message.id[:60]: faults(message.id, message.string)
        for message in catalog
        if message.id and message.string and not message.fuzzy
    }
    assert {text: words for text, words in wrong.items() if words} == {}


def test_there_is_something_to_check():
    assert len(CATALOGS) >= 10 and translations.languages() == ["zh_CN"]
    texts = translations.catalog("glossary", "zh_CN")
    assert len(texts) > 50


@pytest.mark.parametrize(
    ("english", "translation", "what"),
    [
        ("See $a + b$.", "见 $a - b$。", "formulas"),
        ("$$x$$ and `z`", "$$x$$ 和 z", "code"),
        ("[this](a.md) text", "[这篇](b.md)文字", "links"),
        ("about 49,152 numbers", "大约 49,125 个数", "numbers"),
        ("got {n:.2f} points", "得到 {m:.2f} 个点", "places"),
        ("## A heading", "标题", "levels"),
    ],
)
def test_a_broken_translation_is_seen(english, translation, what):
    (fault,) = faults(english, translation)
    assert fault.startswith(what)


def test_a_good_translation_has_no_faults():
    english = "Of 128 points, `z` holds $a_1$, $b$ (see [3](x.md))."
    assert faults(english, "`z` 包含 128 个点的 $b$ 和 $a_1$（见[3](x.md)）。") == []


# --- keeping in step ------------------------------------------------------------------


@pytest.fixture
def old():
    catalog = Catalog("zh_CN")
    catalog.add("A face has\neight knobs.", "一张脸有八个旋钮。", context="cell-1")
    catalog.add("Another text here.", "另一段文字。", context="cell-2")
    return catalog


def again(catalog):
    """The catalog as it is read from the file that it was written to."""
    return read_po(io.BytesIO(translations.serialized(catalog).encode()), "zh_CN")


def entry(catalog, text):
    return next(message for message in catalog if message.id == text)


def test_a_text_whose_lines_end_elsewhere_keeps_its_translation(old):
    text = Text("cell-1", "A face has eight\nknobs.")
    message = entry(updated(old, [text]), text.english)
    assert message.string == "一张脸有八个旋钮。" and not message.fuzzy


def test_a_text_in_another_cell_keeps_its_translation(old):
    text = Text("cell-9", "A face has eight knobs.")
    message = entry(updated(old, [text]), text.english)
    assert message.string and not message.fuzzy and message.context == "cell-9"


def test_a_changed_text_becomes_fuzzy_and_says_what_it_was(old):
    text = Text("cell-1", "A face has nine knobs.")
    message = entry(updated(old, [text]), text.english)
    assert message.fuzzy and message.string == "一张脸有八个旋钮。"
    assert message.user_comments == ["was: A face has eight knobs."]


def test_a_fuzzy_text_stays_fuzzy_until_somebody_looks_at_it(old):
    text = Text("cell-1", "A face has nine knobs.")
    message = entry(updated(again(updated(old, [text])), [text]), text.english)
    assert message.fuzzy
    assert message.user_comments == ["was: A face has eight knobs."]


def test_a_change_that_is_taken_back_brings_the_translation_back(old):
    changed = updated(old, [Text("cell-1", "A face has nine knobs.")])
    text = Text("cell-1", "A face has eight knobs.")
    message = entry(updated(again(changed), [text]), text.english)
    assert message.string == "一张脸有八个旋钮。"
    assert not message.fuzzy and not message.user_comments


def test_a_text_that_has_gone_is_obsolete_and_may_come_back(old):
    one = Text("cell-1", "A face has eight knobs.")
    two = Text("cell-2", "Another text here.")
    catalog = updated(old, [one])
    assert [m.string for m in catalog.obsolete.values()] == ["另一段文字。"]
    message = entry(updated(again(catalog), [one, two]), two.english)
    assert message.string == "另一段文字。" and not message.fuzzy


def test_a_new_text_is_empty(old):
    text = Text("cell-1", "Something about quite other things, at length.")
    assert entry(updated(old, [text]), text.english).string in ("", None)


def test_catalogs_are_written_the_same_again():
    for path in CATALOGS:
        catalog = translations.read(path, path.parent.name)
        texts = [Text(m.context, m.id) for m in catalog if m.id]
        stored = path.read_text(encoding="utf-8")
        assert translations.serialized(updated(catalog, texts)) == stored


# --- reading Markdown and programs ----------------------------------------------------


def test_paragraphs_keep_formulas_and_fences_together():
    source = "# A\n\nText\n$$\na\n\nb\n$$\nmore\n\n```sh\nx\n\ny\n```\n\n- c\n\n  d"
    parts = translations.paragraphs(source)
    assert parts == [
        "# A",
        "Text\n$$\na\n\nb\n$$\nmore",
        "```sh\nx\n\ny\n```",
        "- c",
        "  d",
    ]
    wanted = [translations.has_words(part) for part in ["# Aa", "$$a$$", parts[2]]]
    assert wanted == [True, False, False]


def test_markdown_without_translations_stays_as_it_is():
    sources = [path.read_text(encoding="utf-8") for path in translations.PAGES]
    for nb in translations.course().values():
        sources += [c.source for c in nb.cells if c.cell_type == "markdown"]
    for source in sources:
        same = translations.markdown(source, lambda part: part)
        assert same == re.sub(r"\n{3,}", "\n\n", source).strip("\n")


def test_messages_have_places_for_values(tmp_path):
    path = tmp_path / "lesson.py"
    path.write_text(
        '"""A module."""\n'
        "def f(x):\n"
        '    """A docstring of words."""\n'
        '    if x: raise ValueError("not for learners")\n'
        '    raise Wrong(f"Expected {x:.2f} here, " "not there.")\n'
    )
    texts = [text.english for text in translations.of_checks(path)]
    assert texts == ["Expected {x:.2f} here, not there."]


def test_labels_and_alt_texts_are_found():
    texts = {text.english for text in translations.of_figures()}
    assert {"hair color", "image space", "original", "squared error per face"} <= texts
    assert "knobs that move" in texts
    # short, a key that is assigned, a name in a comprehension, in a call, of a slider
    assert {"in z", "real test images", "distance {shift:g}"} <= texts
    assert {"start", "logits", "position"} <= texts
    assert not {"row wrap", "randomized", "bold", "center"} & texts


# --- lessons in another language ------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A course of two lessons, the second not translated."""
    cells = [
        new_markdown_cell("# 01 · One\n\nSee [two](#2.-Two-ways).", id="a"),
        new_code_cell("x = 1\nx", id="b"),
        new_markdown_cell("## 2. Two `ways`\n\nWords.\n\n$$x$$", id="c"),
    ]
    other = new_markdown_cell("# 02\n\n[back](01_one.ipynb#2-two-ways)", id="d")
    stored = {
        "01_one.ipynb": new_notebook(cells=cells),
        "02_two.ipynb": new_notebook(cells=[other, new_code_cell("y = 2", id="e")]),
    }
    known = {
        ("a", "# 01 · One"): "# 01 · 一",
        ("c", "## 2. Two `ways`"): "## 2. 两种 `ways`",
    }
    monkeypatch.setattr(translations, "stored", lambda: stored)
    monkeypatch.setattr(
        translations, "catalog", lambda name, _: known if name == "01_one" else {}
    )
    monkeypatch.setattr(translations, "BUILD", tmp_path)
    monkeypatch.setattr(translations, "ROOT", tmp_path)
    monkeypatch.setattr(translations, "languages", lambda: ["zh_CN"])
    translations.course.cache_clear()
    yield stored
    translations.course.cache_clear()


def test_what_is_not_translated_stays_english_and_links_follow(small):
    one, two = translations.course("zh_CN").values()
    assert one.cells[0].source == "# 01 · 一\n\nSee [two](#2.-两种-ways)."
    assert one.cells[2].source == "## 2. 两种 `ways`\n\nWords.\n\n$$x$$"
    assert two.cells[0].source == "# 02\n\n[back](01_one.ipynb#2.-两种-ways)"
    assert one.cells[1].source == small["01_one.ipynb"].cells[1].source
    assert small["01_one.ipynb"].cells[0].source.startswith("# 01 · One")


def test_the_notebooks_choose_the_language_before_all_code(small, monkeypatch):
    folder = translations.build("zh_CN")
    nb = notebooks.read(folder / "01_one.ipynb")
    first = next(cell for cell in nb.cells if cell.cell_type == "code")
    monkeypatch.setattr(os, "environ", {})
    exec(first.source, {})
    assert os.environ == {"GENCOURSE_LANG": "zh_CN"}


def test_nobody_s_work_is_overwritten(small, capsys):
    path = translations.build("zh_CN") / "01_one.ipynb"
    nb = notebooks.read(path)
    nb.cells[-1].source = "My notes."
    notebooks.write(nb, path)
    (path.parent / "02_two.ipynb").unlink()
    translations.build("zh_CN")
    assert notebooks.read(path).cells[-1].source == "My notes."
    assert (path.parent / "02_two.ipynb").exists()
    assert "01_one.ipynb has changes of yours" in capsys.readouterr().out


def test_results_of_a_run_are_taken_as_long_as_the_code_is_the_same(small):
    name = "01_one.ipynb"
    nb = translations.with_switch(translations.lesson(name, "zh_CN"), "zh_CN")
    nb.cells[2].outputs = [new_output("stream", name="stdout", text="1")]
    notebooks.write(nb, translations.BUILD / "zh_CN/results" / name)
    assert translations.lesson(name, "zh_CN").cells[1].outputs[0]["text"] == "1"
    small[name].cells[1].source = "x = 2\nx"
    assert translations.lesson(name, "zh_CN").cells[1].outputs == []


def test_an_unknown_language_is_named(small):
    with pytest.raises(translations.Failure, match="translations/xx.*zh_CN"):
        translations.course("xx")


def test_chinese_sentences_for_slides():
    text = "第一句。第二句（见“$a。b$”）！第三句？“第四句。”最后"
    assert deck.sentences(text) == [
        "第一句。",
        "第二句（见“$a。b$”）！",
        "第三句？",
        "“第四句。”",
        "最后",
    ]
    assert deck.fitting(deck.sentences(text), 18) == "第一句。"
