"""The checks' messages and the figures' texts in the reader's language.

The environment variable `GENCOURSE_LANG` chooses it: "zh" is Chinese, and without it
everything stays English. The catalogs in `translations/` are gettext files.
"""

import os
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from textwrap import fill

FOLDER = Path(__file__).parent / "translations"
PLACE = re.compile(r"\{(?:[^{}]|\{[^{}]*\})+\}")  # where a message has a value
# Labels of figures: one above another or above a number, or one with a number behind.
JOINED = re.compile(r"(.*?)(,?\n|(?= \([\d.]+\)$))([^\n]*)", re.DOTALL)
NO_START = "，。：；？！、）》”"  # no line begins with one of these


def translate(text: str) -> str:
    """Return the text in the reader's language, or as it is if there is none."""
    language = os.environ.get("GENCOURSE_LANG")
    return translator(language)(text) if language else text


class Translator:
    """Translates whole texts, also those in which `{places}` were filled with values.

    The message "Expected {n} points." also translates "Expected 7 points.", so the
    code that writes messages need not know about languages. Values are translated,
    too, if they are messages themselves; a text that is no message stays as it is.
    """

    def __init__(self, messages: Mapping[str, str]) -> None:
        self.exact = {normal(text): new for text, new in messages.items()}
        filled = (text for text in self.exact if PLACE.search(text))
        # The message with the most words of its own is the one that was meant.
        by_words = sorted(filled, key=lambda text: -len(PLACE.sub("", text)))
        self.patterns = [(pattern(text), text) for text in by_words]

    def __call__(self, text: str) -> str:
        if not re.search(r"[^\W\d_]{2}", text):
            return text
        if (key := normal(text)) in self.exact:
            return self.exact[key]
        joined = JOINED.fullmatch(text)
        # "face {i}" is not meant by "face width (19)", nor "step {i}" by "step 7\n0.3".
        known = joined and self(joined[1]) != joined[1]
        for found, message in () if known else self.patterns:
            if match := found.fullmatch(key):
                places = PLACE.findall(message)
                values = dict(zip(places, map(self, match.groups()), strict=True))
                return put(values, self.exact[message])
        return "".join(map(self, joined.groups())) if joined else text


def normal(text: str) -> str:
    """Return the text with one space for every run of spaces and ends of lines."""
    return " ".join(text.split())


def put(values: Mapping[str, str], message: str) -> str:
    return PLACE.sub(lambda place: values[place[0]], message)


def pattern(message: str) -> re.Pattern:
    """Return what matches the message with any values in its places."""
    words = map(re.escape, PLACE.split(message))
    return re.compile("(.*?)".join(words), re.DOTALL)


@cache
def translator(language: str) -> Translator:
    """Return the translator into a language such as "zh" or "zh_CN"."""
    messages = {}
    for path in sorted(FOLDER.glob(f"{language[:2]}*/*.po")):
        messages |= {text: new for (_, text), new in translations(path).items()}
    return Translator(messages)


def translations(path: Path) -> dict[tuple[str | None, str], str]:
    """Return (context, text) -> translation of a catalog, without fuzzy ones."""
    from babel.messages.pofile import read_po

    with open(path, "rb") as file:
        return {
            (message.context, message.id): message.string
            for message in read_po(file)
            if message.id and message.string and not message.fuzzy
        }


# --- lines ----------------------------------------------------------------------------


def text_width(text: str) -> int:
    """Return how many columns a text takes; a Chinese character takes two."""
    return len(text) + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - text_width(text))


def wrap(text: str, columns: int) -> str:
    """Break a line at spaces, or between any two Chinese characters."""
    if text_width(text) == len(text):
        return fill(text, columns)
    lines = [""]
    for piece in re.findall(r"[!-~]+|.", text):
        full = text_width(lines[-1] + piece) > columns
        if full and piece not in NO_START:
            lines.append("")
        lines[-1] += piece if lines[-1] or piece.strip() else ""
    return "\n".join(line.rstrip() for line in lines)
