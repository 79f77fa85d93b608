"""All lessons as one book for print."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "options, path, heading",
    [
        ((), "gencourse.pdf", "How machines generate images"),
        (("--language", "zh_CN"), "zh_CN/gencourse.pdf", "机器怎样生成图像"),
    ],
)
def test_the_book_holds_every_lesson(run_tool, options, path, heading):
    run_tool("book", *options)
    book = (ROOT / "build" / path).read_bytes()
    assert book.startswith(b"%PDF") and len(re.findall(rb"/Type */Page\b", book)) > 80
    page = (ROOT / "build/book-html/book.html").read_text(encoding="utf-8")
    assert f"<h1>{heading}" in page
    for number in range(1, 7):
        assert f"<h2>0{number} ·" in page
