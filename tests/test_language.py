"""Checks and figures in the reader's language."""

import re

import pytest
import torch
from test_checks import typed
from wrong_answers import WRONG

from gencourse import checks, language, plot
from gencourse.language import Translator

LESSON_01 = [(n, source) for n in WRONG if n[0] == "1" for source, _ in WRONG[n]]
# Four words in a row that are neither code nor a formula.
ENGLISH = re.compile(r"\b[A-Za-z]{2,} [a-z]{2,} [a-z]{2,} [a-z]{2,}\b")


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("GENCOURSE_LANG", "zh")
    monkeypatch.setattr(checks, "_progress", checks.Progress())
    monkeypatch.setattr(checks, "SECONDS", 3600)  # however busy the machine is


def test_a_message_is_found_with_any_values_in_it():
    say = Translator(
        {
            "Expected {n} {what}.": "需要 {n} 个{what}。",
            "the points": "点",
            "the {n}": "第 {n} 个",
            "two\nlines": "两\n行",
            "Expected {n} points, got {m}.": "{m} 个点，需要 {n} 个。",
        }
    )
    assert say("Expected\n 7 the points.") == "需要 7 个点。"
    assert say("Expected 7 points, got 9.") == "9 个点，需要 7 个。"
    assert say("the points\n0.3") == "点\n0.3"
    assert say("two\nlines\n0.3") == "两\n行\n0.3"
    assert say("the 7\n0.3") == "第 7 个\n0.3"
    assert say("the points,\nthe points") == "点,\n点"
    assert say("the points (12)") == "点 (12)"
    assert say("some points (of a kind)") == "some points (of a kind)"
    assert say("Expected nothing") == "Expected nothing"
    assert say(r"$\mu$: 0.3") == r"$\mu$: 0.3"


def test_a_place_may_have_a_place_in_its_format():
    say = Translator({"about {value:.{digits}f} in all": "一共大约 {value:.{digits}f}"})
    assert say("about 3.14 in all") == "一共大约 3.14"


def test_without_a_language_nothing_is_read(monkeypatch):
    monkeypatch.delenv("GENCOURSE_LANG", raising=False)
    monkeypatch.setattr(language, "translator", None)
    assert language.translate("not attempted") == "not attempted"


@pytest.mark.parametrize("name", ["zh", "zh_CN", "zh-CN"])
def test_names_of_chinese(name):
    assert language.translator(name)("your answer") == "你的答案"


def test_an_unknown_language_is_english():
    assert language.translator("xx")("your answer") == "your answer"


def test_lines_break_between_chinese_characters():
    text = "数值都对，但形状是 (3, 1)，而不是 (3,)。" * 4
    lines = language.wrap(text, 40).splitlines()
    assert max(map(language.text_width, lines)) <= 42
    assert not any(line[0] in language.NO_START for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert language.wrap("plain words " * 9, 40).count("\n") == 2


def test_checks_answer_in_chinese(chinese):
    assert "练习 1.1：还不对。" in checks.check("1.1", 0.5).text
    assert "正确。精确值是 0.0159。" in checks.check("1.1", 0.016).text
    assert "这个解答正确。" in checks.solution("1.1", 0.016).text
    assert checks.check("1.1", ...).text.startswith("练习 1.1：尚未尝试：")
    assert "提示 2（共 3 条）：" in checks.hint("1.2", 2).text
    report = checks.report("1").text.splitlines()
    assert "已解出" in report[0] and "尚未尝试" in report[1]
    assert report[1].endswith("每个数值可以偏离多远？   （已看 2 条提示，共 3 条）")
    columns = [
        language.text_width(line[: line.index(mark)])
        for line, mark in zip(report, ("先预测", "每个", "混合"), strict=False)
    ]
    assert len(set(columns)) == 1


@pytest.mark.parametrize(("number", "source"), LESSON_01)
def test_no_verdict_of_lesson_01_stays_english(number, source, chinese):
    text = checks.check(number, typed(number, source)).text
    text = re.sub(r"(?s)(?<=你的代码抛出了).*", "", text)  # what Python says
    assert not ENGLISH.search(" ".join(text.split())), text


@pytest.mark.filterwarnings("ignore:no font found")  # not every machine has one
def test_figures_speak_chinese(chinese):
    alt = (
        "Twenty different clean cartoon faces, generated from Gaussian latent vectors."
    )
    words = language.translator("zh")
    picture = plot.grid(torch.rand(2, 1, 8, 8), alt=alt, row_labels=["real faces"])
    assert picture.alt == words(alt) != alt
    seen = []
    with plot.canvas(alt) as page:
        page.axes[0].set(xlabel="real faces", ylabel="a label of my own")
        seen = [page.axes[0].xaxis.label, page.axes[0].yaxis.label]
    assert [text.get_text() for text in seen] == ["真实人脸", "a label of my own"]
    numbers = plot.heat([[1.0, 0.5]], ["real"], [2, 4], low=0, high=1, alt=alt)
    assert numbers.alt == words(alt)  # labels may be numbers


@pytest.mark.filterwarnings("ignore:no font found")
def test_names_on_an_axis_are_translated(chinese):
    with plot.canvas("Two bars, of which a test has drawn the names.") as page:
        page.axes[0].barh(["real faces", "a name of my own"], [1.0, 2.0])
    ticks = [tick.get_text() for tick in page.axes[0].get_yticklabels()]
    assert ticks == ["真实人脸", "a name of my own"]
