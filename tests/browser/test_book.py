"""All lessons as one book for print."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_book_holds_every_lesson(run_tool):
    run_tool("book")
    book = (ROOT / "build/gencourse.pdf").read_bytes()
    assert book.startswith(b"%PDF") and len(re.findall(rb"/Type */Page\b", book)) > 80
    page = (ROOT / "build/book-html/book.html").read_text(encoding="utf-8")
    for number in range(1, 7):
        assert f"<h2>0{number} ·" in page
