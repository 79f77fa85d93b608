"""All lessons as one book for print."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_book_holds_every_lesson(run_tool, open_page):
    run_tool("book")
    book = (ROOT / "build/gencourse.pdf").read_bytes()
    assert book.startswith(b"%PDF") and len(re.findall(rb"/Type */Page\b", book)) > 80
    page = open_page((ROOT / "build/book-html/book.html").as_uri())
    heads = page.locator("article h2").all_inner_texts()
    for number in range(1, 6):
        assert any(head.startswith(f"0{number} ·") for head in heads)
