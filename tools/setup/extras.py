"""Add optional parts of pyproject.toml to .venv: tools/setup/extras.py docs browser

What `make lab` and `make test` need is there already; only the packages that the named
extras list are fetched, in the versions of constraints.txt. Called by the Makefile.
"""

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.setup import setup_env  # noqa: E402


def requirements(extras: list[str]) -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = tomllib.loads(text)["project"]["optional-dependencies"]
    unknown = set(extras) - set(known)
    if unknown:
        sys.exit(f"pyproject.toml has no extra {sorted(unknown)}, only {list(known)}")
    return [line for extra in extras for line in known[extra]]


def install(extras: list[str], constraints: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if constraints:
        command += ["-c", constraints]
    command += requirements(extras)
    print(f"Installing {', '.join(extras)} into .venv (once) ...", flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        output = done.stdout + done.stderr
        lines = [line[:160] for line in output.splitlines() if line.strip()]
        sys.exit("\n".join([*lines[-12:], "", setup_env.explain(output)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="+")
    parser.add_argument("--constraints", default="constraints.txt", help="'' for none")
    args = parser.parse_args()
    install(args.extras, args.constraints)


if __name__ == "__main__":
    main()
