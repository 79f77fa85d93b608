"""Set up .venv: checks first, in plain words, then pip. Called by the Makefile.

It runs on the Python that it finds, however old, so it uses nothing that is new.

`.venv/ready` names the folder it was set up in and exists only after everything went
well. `.venv/unfinished` marks one that we began: if it is still there, we start again.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

VENV = ".venv"
READY = os.path.join(VENV, "ready")
UNFINISHED = os.path.join(VENV, "unfinished")
OLDEST = (3, 11)
NEEDED_GB = 2.5
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

TOO_OLD = """\
Python {found} is too old: the course needs Python {oldest} or newer.
  {executable}
Install a newer one from python.org or your system's packages. If you have one already,
name it: make PYTHON=python3.12 lab"""

NO_VENV = """\
This Python cannot make virtual environments: its module `{module}` is missing.
  {executable}
On Debian and Ubuntu: sudo apt install python{version}-venv
Then run the same command again. (Or name another Python: make PYTHON=python3.12 lab)"""

NO_SPACE = """\
There is not enough room on the disk: {free:.1f} GB are free in
  {folder}
and the set-up needs about {needed:.1f} GB more. Make room, or move this folder to a
larger disk, and run the same command again."""

DISK_FULL = """\
The disk is full. Free now: {free:.1f} GB here, {free_temp:.1f} GB in {temp}.
The course needs about {needed} GB here, and while it installs 1 GB in the folder for
temporary files (TMPDIR names another one). On Linux the usual build of torch brings the
libraries for NVIDIA GPUs, about 6 GB more; without such a GPU: make CPU=1 lab"""

NO_NETWORK = """\
The packages could not be fetched: the package index did not answer.
Check the network (and the proxy, if there is one), then run the same command again.
The network is needed for the set-up only; the lessons run without one."""

NO_VERSION = """\
The package index has no fitting version of a package for this Python or this computer.
Python {found} on {platform}; tested with Python 3.11, 3.12 and 3.13, 64-bit.
Another Python may help: make PYTHON=python3.12 lab"""

OTHER = """\
pip could not install the course; its own words are above.
Run the same command again; if it fails again, `make distclean` starts from nothing."""

CPU_HINT = """\
No NVIDIA GPU was seen. If the download of torch turns out to be several GB, stop it
with Ctrl-C and take the small build: make CPU=1 lab"""

# Files in .venv that keep Jupyter quiet and from asking other hosts.
QUIET = {
    "etc/ipython/ipython_kernel_config.py": """\
# No lines about connections that do not leave this computer, or about stopping.
c = get_config()
c.IPKernelApp.log_level = "CRITICAL"
""",
    "share/jupyter/lab/settings/overrides.json": """\
{
  "@jupyterlab/apputils-extension:notification": {
    "checkForUpdates": false,
    "fetchNews": "false"
  }
}
""",
}

INTERRUPTED = """
The set-up was stopped before it was finished. Run the same command again to start it
afresh; what was downloaded is kept."""


class Problem(Exception):
    """Something that the person can mend; the message says how."""


def check_version(version=None):
    """Raise `Problem` if this Python is older than the course needs."""
    version = tuple(version or sys.version_info[:3])
    if version < OLDEST:
        raise Problem(
            TOO_OLD.format(
                found=".".join(map(str, version)),
                oldest=".".join(map(str, OLDEST)),
                executable=sys.executable,
            )
        )


def check_venv_module(missing=None):
    """Raise `Problem` if `venv` or what it needs is missing, as on a bare Debian."""
    for module in ("venv", "ensurepip"):
        try:
            if module == missing:
                raise ImportError(module)
            __import__(module)
        except ImportError:
            raise Problem(
                NO_VENV.format(
                    module=module,
                    executable=sys.executable,
                    version="{}.{}".format(*sys.version_info[:2]),
                )
            ) from None


def check_space(folder, already=0.0):
    """Raise `Problem` if the disk lacks room; `already` GB are installed."""
    free = free_gb(folder)
    needed = max(0.3, NEEDED_GB - already)
    if free < needed:
        raise Problem(
            NO_SPACE.format(free=free, needed=needed, folder=os.path.abspath(folder))
        )


def free_gb(folder):
    return shutil.disk_usage(folder).free / 1e9


def size_gb(folder):
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(path, name)).st_size
    return total / 1e9


def explain(output):
    """Return plain words for what pip printed when it failed."""
    text = output.lower()
    if "no space left" in text or "errno 28" in text or "disk quota" in text:
        return DISK_FULL.format(
            free=free_gb("."),
            free_temp=free_gb(tempfile.gettempdir()),
            temp=tempfile.gettempdir(),
            needed=NEEDED_GB,
        )
    network = (
        "connection broken",
        "newconnectionerror",
        "max retries",
        "name resolution",
        "network is unreachable",
        "timed out",
        "connection refused",
        "connectionerror",
        "proxyerror",
        "no matching distribution found for setuptools",  # it is there for everyone
    )
    if any(words in text for words in network):
        return NO_NETWORK
    if "no matching distribution" in text or "requires a different python" in text:
        found = ".".join(map(str, sys.version_info[:3]))
        return NO_VERSION.format(found=found, platform=sys.platform)
    return OTHER


def venv_python():
    folder = "Scripts" if os.name == "nt" else "bin"
    return os.path.join(VENV, folder, "python")


def works(python):
    """Return whether `python` starts, is new enough and has pip."""
    test = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.call([python, "-c", test], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def make_venv():
    """Make .venv, or keep a whole one; an unfinished or broken one is made anew."""
    ours = os.path.exists(READY) or os.path.exists(UNFINISHED)
    if os.path.exists(UNFINISHED):
        say("An earlier set-up was not finished: starting it again.")
        shutil.rmtree(VENV)
    elif os.path.isdir(VENV) and not works(venv_python()):
        if not ours:
            raise Problem(
                "There is a folder {} here that is not a working environment and that\n"
                "this set-up did not make. Move or delete it, and run the same command "
                "again.".format(VENV)
            )
        say("The Python of {} is gone: making it anew.".format(VENV))
        shutil.rmtree(VENV)
    if os.path.isdir(VENV):
        check_space(".", already=size_gb(VENV))
        mark_unfinished()
        return
    check_space(".")
    os.mkdir(VENV)
    mark_unfinished()
    command = [sys.executable, "-m", "venv", VENV]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        output = done.stdout.decode(errors="replace")
        sys.stderr.write(output)
        raise Problem(explain(output))


def mark_unfinished():
    with open(UNFINISHED, "w") as file:
        file.write("being set up\n")
    if os.path.exists(READY):
        os.remove(READY)


def install(constraints, cpu):
    """Install the course into .venv with pip, showing what is being fetched."""
    command = [venv_python(), "-m", "pip", "install", "--disable-pip-version-check"]
    if constraints:
        command += ["-c", constraints]
    if cpu:
        command += ["--extra-index-url", CPU_INDEX]
    elif sys.platform.startswith("linux") and not shutil.which("nvidia-smi"):
        say(CPU_HINT)
    command += ["-e", ".[dev]"]
    pip = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    lines = []
    for raw in pip.stdout:
        line = raw.decode(errors="replace").rstrip()
        large = " MB)" in line or " GB)" in line
        if large and line.strip().startswith("Downloading"):
            say("  " + line.strip()[:100])
        elif line.startswith("Installing collected packages"):
            say("  Installing {} packages ...".format(line.count(",") + 1))
        elif "WARNING: Retrying" in line and "total=4" in line:
            say("  The package index does not answer; trying again ...")
        lines.append(line)
    if pip.wait():
        say("")
        say("\n".join([line[:160] for line in lines if line.strip()][-12:]))
        raise Problem(explain("\n".join(lines)))


def try_imports():
    """Raise `Problem` if what was installed cannot be used."""
    test = "import gencourse, jupyterlab, nbval, numpy, torch"
    done = subprocess.run(
        [venv_python(), "-c", test], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        say(done.stdout.decode(errors="replace"))
        raise Problem("Everything was installed, but it cannot be loaded; see above.")


def quiet_jupyter():
    for name, text in QUIET.items():
        path = os.path.join(VENV, *name.split("/"))
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(text)


def say(text):
    print(text)
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraints", default="constraints.txt")
    parser.add_argument("--cpu", default="", help="anything: the CPU build of torch")
    args = parser.parse_args()
    try:
        check_version()
        check_venv_module()
        say("Setting up in {} (once; a few minutes, about 2 GB) ...".format(VENV))
        make_venv()
        install(args.constraints, args.cpu)
        try_imports()
        quiet_jupyter()
    except Problem as problem:
        sys.exit("\n{}".format(problem))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno != 28:
            raise
        sys.exit("\n" + explain(str(error)))
    os.remove(UNFINISHED)
    with open(READY, "w") as file:
        file.write(os.getcwd() + "\n")
    say("Ready.\n")


if __name__ == "__main__":
    main()
