"""How the pages of the web site are made from the lessons; Sphinx is not needed."""

import ast
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.command import Failure
from tools.publish import site, translations
from tools.publish.formulas import FORMULAS

ROOT = Path(__file__).resolve().parent.parent
NAME = "02_autoencoder.ipynb"
FILE = f"notebooks/{NAME}"


@pytest.fixture(scope="module")
def course():
    return translations.course()


def picture(alt):
    data = {"image/png": "aGVsbG8=", "text/plain": alt}
    return new_output("display_data", data=data)


@pytest.fixture
def small():
    """A course of one lesson with one exercise; names as in the repository."""
    cells = [
        new_markdown_cell("# 02 · Small\n\nA question."),
        new_markdown_cell("## 1. The `loss`"),
        new_markdown_cell("## Exercises\n\nFill in a cell."),
        new_markdown_cell(
            "### Exercise 2.1 · Half of `x`\n\n*easy, 5 min*\n\n"
            "See [above](#1.-The-loss)."
        ),
        new_code_cell("checks.check('2.1', half)"),
        new_code_cell("# Solution of exercise 2.1\nchecks.solution('2.1', mine)"),
        new_code_cell("checks.report('2')"),
    ]
    for cell in cells[2:]:
        solution = cell.source.startswith("# Solution")
        cell.metadata["tags"] = ["solution" if solution else "exercise"]
    return {"00_start_here.ipynb": new_notebook(), NAME: new_notebook(cells=cells)}


# --- links ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[a](03_vae.ipynb)", "[a](03_vae.ipynb)"),
        ("[a](02_autoencoder.ipynb#1.-The-loss)", "[a](#1-the-loss)"),
        ("[a](#1.-The-loss)", "[a](#1-the-loss)"),
        ("[a](#1-the-loss)", "[a](#1-the-loss)"),
        ("[a](../gencourse/losses.py)", "[a](api/losses.rst)"),
        ("![a](figures/faces.png)", "![a](figures/faces.png)"),
        ("[the data](../data/README.md)", "the data"),
        ("[the `tools`](../tools)", "the `tools`"),
        ("[a](https://example.org/x)", "[a](https://example.org/x)"),
        ("$E[f](x)$", "$E[f](x)$"),
    ],
)
def test_links_of_a_lesson(link, becomes, small):
    assert site.relink(f"See {link}.", FILE, NAME, small) == f"See {becomes}."


def test_links_of_a_page_lead_to_the_lessons(small):
    link = "[a](../notebooks/02_autoencoder.ipynb#1-the-loss)"
    new = site.relink(link, "docs/glossary.md", "glossary.md", small)
    assert new == "[a](02_autoencoder.ipynb#1-the-loss)"


def test_a_link_to_a_heading_that_is_gone_is_named(small):
    with pytest.raises(Failure, match=f"{FILE} links to #2-gone.*02 · Small"):
        site.relink("[a](#2-gone)", FILE, NAME, small)


# --- cells ----------------------------------------------------------------------------


def test_solutions_fold(small):
    solution = site.dressed(small[NAME].cells[5])
    assert solution.metadata["tags"] == ["solution", "hide-cell"]
    assert solution.metadata["mystnb"]["code_prompt_show"] == "Solution"
    for cell in small[NAME].cells[:5]:
        assert site.dressed(cell) == cell


def test_results_to_be_predicted_fold():
    cell = new_code_cell("print(1)", metadata={"tags": ["exercise", "reveal"]})
    dressed = site.dressed(cell)
    assert dressed.metadata["tags"] == ["exercise", "reveal", "hide-output"]
    assert dressed.metadata["mystnb"]["code_prompt_show"] == "Result"


@pytest.mark.parametrize(
    ("source", "folds"),
    [
        ("plot.bars({'a': 1})", True),
        ("with plot.canvas('x') as page:\n    page.axes.plot(y)\npage.picture", True),
        ("x = f(2)\nplot.bars({'a': x})", False),
        ("def f(x):\n    return x\n\nplot.curves({'f': f(x)})", False),
        ("for x in y:\n    print(x)", False),
    ],
)
def test_code_that_only_draws_folds(source, folds):
    cell = new_code_cell(source, outputs=[picture("A face that smiles.")])
    hidden = "hide-input" in site.dressed(cell).metadata.get("tags", [])
    assert hidden == folds
    cell.outputs = []
    assert "hide-input" not in site.dressed(cell).metadata.get("tags", [])


def test_pictures_take_their_texts_along():
    cell = new_code_cell("plot", outputs=[picture("A face\nthat smiles: wide.")])
    dressed = site.dressed(cell)
    assert dressed.metadata["mystnb"] == {"image": {"alt": "A face that smiles: wide."}}
    assert "mystnb" not in cell.metadata
    cell.outputs *= 2
    with pytest.raises(Failure, match="2 pictures"):
        site.dressed(cell)


def test_exercises_are_collected(small):
    page = site.exercise_page(small)
    nbformat.validate(page)
    assert [cell.cell_type for cell in page.cells] == ["markdown"] * 3 + ["code"] * 2
    intro, lesson, task, start, solution = page.cells
    assert lesson.source == "## 02 · Small"
    assert task.source.startswith("### Exercise 2.1 · Half of `x`\n*easy, 5 min*")
    assert "[above](02_autoencoder.ipynb#1-the-loss)" in task.source
    assert "(02_autoencoder.ipynb#exercise-21--half-of-x)" in task.source
    assert start.source == small[NAME].cells[4].source
    assert "hide-cell" in solution.metadata["tags"]


# --- what is taken from other files ---------------------------------------------------


def test_the_table_of_symbols_is_the_lesson_s(course):
    text = site.notation(course)
    assert r"| $\varepsilon$ | `eps` | noise" in text
    assert text.count("\n| $") >= 12 and "nats" in text and "## " not in text


def test_every_lesson_has_a_card(course):
    cards = site.lesson_cards()
    links = re.findall(r":link: (\w+)\n", cards)
    assert len(links) == cards.count(":::{grid-item-card}") == 6  # even rows of 2 or 3
    appendices = re.findall(r"\]\((\w+)\.ipynb\)", cards)
    assert sorted(f"{link}.ipynb" for link in links + appendices) == list(course)[1:]
    assert cards.count("min to read") == len(links + appendices)


def test_a_missing_section_is_named():
    with pytest.raises(Failure, match="## Lessons"):
        site.section("# Title\n\n## Other\n", "Lessons")


def test_every_module_has_a_page():
    import gencourse

    names = site.module_names()
    assert sorted(names) == sorted(gencourse.__all__)
    assert names.index("faces") < names.index("models") < names.index("plot")


# --- docstrings -----------------------------------------------------------------------


def test_formulas_and_code_of_docstrings_are_kept():
    text = site.docstring(
        "||x - x_hat||^2, see `nll(*x)` and sigma_.\n\n"
        "Args:\n    x, x_hat: (B, ...), *any* shape.\n\n"
        "An example follows.\n\n    y = 2 * x\n\n"
        "Source: A & B 2006, part 3.\nTaught in: lesson 02\n"
    )
    assert re.split(r"\n{2,}", text.strip()) == [
        r"\|\|x - x_hat\|\|^2, see `nll(*x)` and sigma\_.",
        "Args:\n    x, x_hat: (B, ...), \\*any\\* shape.",
        "An example follows.",
        "::",
        "    y = 2 * x",
        "**Source**: A & B 2006, part 3.",
        "**Taught in**: :doc:`lesson 02 </02_autoencoder>`",
    ]


def test_every_formula_for_the_site_begins_a_docstring():
    texts = [
        re.sub(r"\s+", " ", ast.get_docstring(node) or "")
        for path in (ROOT / "gencourse").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    for plain in FORMULAS:
        words = re.sub(r"\s+", " ", plain)
        assert any(text.startswith(words) for text in texts), plain
    text = site.docstring("||x - x_hat||_2^2, the sum over all pixels.")
    assert text.startswith(r":math:`\lVert x - \hat x \rVert_2^2`, the sum")


def test_the_table_of_modules_becomes_links():
    text = site.docstring("Read:\n\n    nets      Encoder, Decoder\n    plot/  grid\n")
    assert text.strip().splitlines()[2:] == [
        "- :doc:`gencourse.nets </api/nets>`: Encoder, Decoder",
        "- :doc:`gencourse.plot </api/plot>`: grid",
    ]


def test_a_page_shows_what_its_module_offers_and_nothing_of_others():
    assert ":imported-members:" in site.module_page("plot")
    for name in site.module_names():
        if ":imported-members:" in site.module_page(name):
            module = import_module(f"gencourse.{name}")
            shown = [
                getattr(module, n) for n in getattr(module, "__all__", dir(module))
            ]
            homes = [getattr(thing, "__module__", "gencourse") for thing in shown]
            assert all(home.startswith("gencourse") for home in homes), name


def test_files_have_the_page_of_their_module():
    for path in ("gencourse/plot/charts.py", "gencourse/plot", "gencourse/plot/"):
        assert site.page_of(path) == "api/plot.rst"
    assert site.page_of("gencourse/losses.py") == "api/losses.rst"
    assert site.page_of("gencourse/pretrained/vae.safetensors") is None


# --- pages written by hand ------------------------------------------------------------


def test_references_hold_every_paper_of_every_lesson(course):
    text = " ".join((ROOT / "docs/references.md").read_text("utf-8").split())
    entries = re.split(r" - (?=[A-ZÅ][^ ]*, )", text)
    compared = 0
    for name, nb in list(course.items())[1:]:
        texts = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
        listed = site.section(texts, "References")
        for line in re.findall(r"^- (.*)", listed, re.M):
            year, words = re.search(r"\((\d{4})\)\. \*?(.+?)[.!?*]", line).groups()
            theirs = [e for e in entries if e.startswith(line.split(",")[0])]
            (entry,) = (e for e in theirs if words.lower() in e.lower())
            assert f"({year})" in entry
            lessons = re.findall(r"\b0\d", entry.rpartition("Lesson")[2])
            assert name[:2] in lessons, f"{words}: used in {name}, says {lessons}"
            compared += 1
    assert compared > 30


def test_the_glossary_can_be_searched_by_every_name():
    definition = "\n  The space · of it.\n\n"
    text = site.glossary(f"latent space · 潜在空间 (潜空间, 隐空间){definition}")
    assert text == f"latent space\n潜在空间\n潜空间\n隐空间{definition}"
    assert site.glossary("nat · 奈特\n  N.") == "nat\n奈特\n  N."
    text = site.glossary("自编码器 (自动编码器) · autoencoder (AE)")
    assert text == "自编码器\n自动编码器\nautoencoder (AE)"


def test_the_glossary_has_the_words_of_the_course(course):
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    found = re.findall(r"^(\S.*) · (.*[\u4e00-\u9fff].*)\n  ", text, re.M)
    english, chinese = zip(*found, strict=True)
    chinese = [term.partition(" (")[0] for term in chinese]  # without synonyms
    assert list(english) == sorted(english, key=str.lower)
    assert len(set(english)) == len(set(chinese)) == len(found) >= 40
    wanted = (
        "自编码器 变分自编码器 生成对抗网络 潜在空间 重参数化技巧 证据下界 模式崩溃 "
        "编码器 解码器 生成器 判别器 后验坍塌 重构误差 先验 后验 流形 似然 KL散度 "
        "对数似然 潜变量 插值 主成分分析 高斯混合"
    )
    assert set(wanted.split()) <= set(chinese)
    assert text.count("[Lesson 0") == len(found)
    site.relink(text, "docs/glossary.md", "glossary.md", course)
