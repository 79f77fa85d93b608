"""Open the course in JupyterLab: `make lab`. Options are passed to JupyterLab."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REDIRECT = ROOT / "build/open_the_course.html"
FIRST_PORT = 8888
START_SECONDS = 120


def first_page() -> str:
    """Return the path of the table of contents, the first notebook."""
    language = os.environ.get("GENCOURSE_LANG")
    folder = f"build/{language}/notebooks" if language else "notebooks"
    pages = sorted(ROOT.glob(f"{folder}/*.ipynb"))
    return f"/lab/tree/{pages[0].relative_to(ROOT).as_posix()}" if pages else "/lab"


def free_port(first: int = FIRST_PORT) -> int:
    for port in range(first, first + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    sys.exit(f"No free port between {first} and {first + 99}.")


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


def command(port: int, options: list[str]) -> list[str]:
    """Return JupyterLab's command line: quiet, and without contacting other hosts."""
    line = [sys.executable, "-m", "jupyterlab", "--no-browser"]
    line += ["--ServerApp.log_level=ERROR", "--LabApp.log_level=ERROR"]
    line += [f"--ServerApp.port={port}", f"--ServerApp.root_dir={ROOT}"]
    line += [f"--LabApp.default_url={first_page()}"]
    line += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    line += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line += ["--allow-root"]
    return line + options


def wait_until_open(port: int, server: subprocess.Popen) -> None:
    """Return when the server answers; exit if it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit("JupyterLab did not start; its message is above.")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    server.terminate()
    sys.exit(f"JupyterLab did not answer within {START_SECONDS} s.")


def open_browser(address: str) -> None:
    """Open the address through a file that only its owner can read.

    Other users of this computer see the command line of the browser, and the address
    contains the token. JupyterLab has such a file too, but in a hidden folder, where
    browsers that run in a sandbox cannot read it.
    """
    REDIRECT.parent.mkdir(exist_ok=True)
    REDIRECT.touch(mode=0o600)
    REDIRECT.write_text(f'<meta http-equiv="refresh" content="0; url={address}">\n')
    # Some browsers return only when they are closed.
    page = REDIRECT.as_uri()
    threading.Thread(target=webbrowser.open, args=[page], daemon=True).start()


def say_where(address: str, port: int, browser: bool) -> None:
    if browser:
        print("The course is opening in your browser; if not, open this address:")
    else:
        print("No browser can be opened here. Open this address in a browser:")
    print(f"\n    {address}\n")
    if os.environ.get("SSH_CONNECTION"):
        print("If the browser is on another computer, first run this there:")
        print(f"    ssh -L {port}:localhost:{port} <this computer>\n")
    print("To stop: save your work, then press Ctrl-C here twice.", flush=True)


def main() -> None:
    port, token, browser = free_port(), secrets.token_hex(16), has_display()
    os.environ["JUPYTER_TOKEN"] = token  # a command line could be seen by other users
    server = subprocess.Popen(command(port, sys.argv[1:]), cwd=ROOT)
    # Ctrl-C belongs to JupyterLab, which asks before it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    wait_until_open(port, server)
    address = f"http://localhost:{port}{first_page()}?token={token}"
    say_where(address, port, browser)
    if browser:
        open_browser(address)
    server.wait()
    REDIRECT.unlink(missing_ok=True)
    print("JupyterLab has stopped.")


if __name__ == "__main__":
    main()
