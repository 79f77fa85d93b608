"""Open the course in JupyterLab. Called by `make lab`; options go to JupyterLab."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST_PORT = 8888
START_SECONDS = 120


def first_page() -> str:
    """Return the path of the table of contents, or of the first notebook there is."""
    start = ROOT / "notebooks/00_start_here.ipynb"
    found = [start] if start.exists() else sorted(ROOT.glob("notebooks/*.ipynb"))
    return f"/lab/tree/{found[0].relative_to(ROOT).as_posix()}" if found else "/lab"


def free_port(first: int = FIRST_PORT) -> int:
    for port in range(first, first + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SystemExit(f"No free port between {first} and {first + 99}.")


def has_display() -> bool:
    """Return whether a browser can be opened here."""
    if sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def command(port: int, browser: bool, options: list[str]) -> list[str]:
    """Return JupyterLab's command line: quiet, and without asking other hosts."""
    line = [sys.executable, "-m", "jupyterlab", "--ServerApp.log_level=ERROR"]
    line += ["--LabApp.log_level=ERROR"]
    line += [f"--ServerApp.port={port}", f"--ServerApp.root_dir={ROOT}"]
    line += [f"--LabApp.default_url={first_page()}"]
    line += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    line += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    # A browser in a sandbox of its own cannot read a file in a hidden folder.
    line += ["--ServerApp.use_redirect_file=False"]
    line += [f"--ServerApp.open_browser={browser}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line += ["--allow-root"]
    return line + options


def wait_until_open(port: int, server: subprocess.Popen) -> None:
    """Return when the server answers; exit if it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit("JupyterLab did not start; its own words are above.")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    server.terminate()
    raise SystemExit(f"JupyterLab did not answer within {START_SECONDS} s.")


def say_where(port: int, token: str, browser: bool) -> None:
    address = f"http://localhost:{port}{first_page()}?token={token}"
    if browser:
        print("The course is opening in your browser; if not, open this address:")
    else:
        print("No browser can be opened from here. Open this address in one:")
    print(f"\n    {address}\n")
    if os.environ.get("SSH_CONNECTION"):
        print("If the browser is on another computer, run this there first:")
        print(f"    ssh -L {port}:localhost:{port} <this computer>\n")
    print("To stop: save your work, then press Ctrl-C here twice.", flush=True)


def main() -> int:
    port, token, browser = free_port(), secrets.token_hex(16), has_display()
    os.environ["JUPYTER_TOKEN"] = token
    server = subprocess.Popen(command(port, browser, sys.argv[1:]), cwd=ROOT)
    # Ctrl-C belongs to JupyterLab, which asks before it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    wait_until_open(port, server)
    say_where(port, token, browser)
    server.wait()
    print("JupyterLab has stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
