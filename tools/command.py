"""What the tools share: how they fail, run, and write a file."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path


class Failure(Exception):
    """A tool cannot do its work; the message says why and what to do."""


def parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring as it is written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(work: Callable[[], None]) -> None:
    """Run a tool; a failure or Ctrl-C ends it with a message and exit status 1.

    A terminal or log that cannot show a character gets a `?` in its place.
    """
    sys.stdout.reconfigure(errors="replace")
    try:
        work()
    except (Failure, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run the same command again to finish.")


def write(text: str, path: Path) -> None:
    """Replace a file at once, so that an interrupt leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
