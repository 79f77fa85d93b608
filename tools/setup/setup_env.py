"""Set up .venv with venv and pip, and say in plain words what went wrong.

python3 tools/setup/setup_env.py           what lessons and tests need
.venv/bin/python tools/setup/setup_env.py docs   an optional part of pyproject.toml

Called by the Makefile. It has to run on the Python that it finds, however old, so it
uses nothing newer than Python 3.6. `.venv/ready` names the folder that was set up.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from urllib.request import urlopen

VENV = ".venv"
PIP_LOG = os.path.join(VENV, "pip.log")
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
# The order to look for another one: the newest last, since packages support it last.
SEARCH = ((3, 13), (3, 12), (3, 11), (3, 14))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

WRONG_PYTHON = """\
The course runs on Python 3.11, 3.12, 3.13, and 3.14. {found} is too {age}:
  {executable}
{reason}
Install Python 3.12 from python.org or with your package manager. If you already have
one of the four, name it: make PYTHON=/path/to/python3.12 lab"""

REASONS = {
    "old": "The packages that the course needs no longer support it.",
    "new": "3.14 is the newest that was tried: PyTorch and other packages often take\n"
    "months to support a new Python.",
}

NO_VENV = """\
This Python cannot create virtual environments; its message is above.
  {executable}
On Debian and Ubuntu: sudo apt install python3-venv
Then run the same command again."""

DISK_FULL = """\
The disk is full. The course needs about 2.5 GB in this folder and, while it installs,
1 GB for temporary files (TMPDIR names their folder). The build of torch for NVIDIA GPUs
needs about 6 GB more; to do without it: make CPU=1 lab"""

NO_NETWORK = """\
The packages could not be downloaded: the package index did not answer.
Check the network (and the proxy, if there is one), then run the same command again.
Only the set-up needs the network; the lessons run without it."""

NO_VERSION = """\
The package index has no suitable version of a package for Python {found} on this
computer ({platform}). The course was tested on 64-bit systems. Another Python may help:
make PYTHON=/path/to/python3.12 lab"""

OTHER = """\
pip could not install the course; its message is above.
Run the same command again. If it fails again, `make distclean` lets you start over."""

CPU_CHOSEN = """\
No NVIDIA GPU was found, so pip will look for the small CPU build of torch. For the
other build: make GPU=1 lab"""

CPU_UNREACHABLE = """\
No NVIDIA GPU was found, but download.pytorch.org, which has the small build of torch,
did not answer. If the download of torch turns out to be several GB, stop it with Ctrl-C
and try again later."""

INTERRUPTED = """
The set-up was stopped. Run the same command again to finish it; downloads are kept."""

# What pip and the operating system write, and what it means. The first match counts.
CAUSES = (
    ("no space left|errno 28|disk quota", DISK_FULL),
    (
        "connection broken|newconnectionerror|max retries|name resolution|timed out|"
        "network is unreachable|connection refused|connectionerror|proxyerror|"
        "no matching distribution found for setuptools",  # which exists everywhere
        NO_NETWORK,
    ),
    ("no matching distribution|requires a different python", NO_VERSION),
)

# Files in .venv that keep Jupyter quiet, and keep it from contacting other hosts.
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


def suitable_python(version=None, keep=False):
    """Return a Python that can run the course: this one, or another one on PATH.

    The newest gives way to an older one on PATH, unless the user named it (`keep`).
    """
    version = version or sys.version_info[:3]
    if version[:2] in VERSIONS and (keep or version[:2] != SEARCH[-1]):
        return sys.executable
    for number in SEARCH:
        if number == version[:2]:
            return sys.executable
        other = shutil.which("python{}.{}".format(*number))
        if other and works(other):
            # Unlike standard output, this shows any character of a path.
            line = "Using {}, since {} is Python {}.{}.\n"
            sys.stderr.write(line.format(other, sys.executable, *version))
            return other
    age = "old" if version[:2] < VERSIONS[0] else "new"
    found = "Python " + ".".join(map(str, version))
    raise SystemExit(
        WRONG_PYTHON.format(
            found=found, age=age, executable=sys.executable, reason=REASONS[age]
        )
    )


def sees_gpu():
    """Return whether the driver of NVIDIA lists a GPU; without one it fails."""
    try:
        output = subprocess.check_output(["nvidia-smi", "-L"], stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError):
        return False
    return b"GPU" in output


def answers(address):
    """Return whether a server answers at once; pip would try for minutes."""
    try:
        urlopen(address, timeout=10).close()
    except (OSError, ValueError):
        return False
    return True


def wants_cpu_build(cpu, gpu):
    """Return whether pip shall look for the small build of torch, and say why."""
    if cpu or gpu or not sys.platform.startswith("linux") or sees_gpu():
        return bool(cpu)
    found = answers(CPU_INDEX + "/torch/")
    print(CPU_CHOSEN if found else CPU_UNREACHABLE, flush=True)
    return found


def explain(output):
    """Return plain words for what pip or venv wrote before it failed."""
    causes = (cause for cause in CAUSES if re.search(cause[0], output, re.I))
    _, explanation = next(causes, ("", OTHER))
    found = ".".join(map(str, sys.version_info[:3]))
    return explanation.format(found=found, platform=sys.platform)


def venv_python():
    folder = "Scripts" if os.name == "nt" else "bin"
    return os.path.join(VENV, folder, "python")


def works(python):
    """Return whether this Python starts and is one that the course runs on."""
    test = "import sys; sys.exit(sys.version_info[:2] not in {})".format(VERSIONS)
    try:
        return subprocess.call([python, "-c", test], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def make_venv(python):
    """Create .venv, keep one that works, or replace one whose Python is gone."""
    command = [python, "-m", "venv", VENV]
    if not works(venv_python()):
        command.append("--clear")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        output = done.stdout.decode(errors="replace")
        reason = explain(output)
        if reason != DISK_FULL:
            reason = NO_VENV.format(executable=python)
        sys.exit("{}\n{}".format(output, reason))


def install(extra, constraints, cpu):
    """Install the course with an extra of pyproject.toml; pip shows what it does."""
    command = [venv_python(), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--log", PIP_LOG, "-e", ".[{}]".format(extra)]
    if constraints:
        command += ["-c", constraints]
    if cpu:
        command += ["--extra-index-url", CPU_INDEX]
    if os.path.exists(PIP_LOG):
        os.remove(PIP_LOG)
    if subprocess.call(command):
        with open(PIP_LOG, encoding="utf-8", errors="replace") as log:
            sys.exit("\n" + explain(log.read()))


def quiet_jupyter():
    for name, text in QUIET.items():
        path = os.path.join(VENV, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extra", nargs="?", default="dev")
    parser.add_argument("--constraints", default="constraints.txt", help="'' for none")
    parser.add_argument("--cpu", default="", help="anything: the small build of torch")
    parser.add_argument("--gpu", default="", help="anything: the build for NVIDIA GPUs")
    parser.add_argument("--keep", default="", help="anything: not another Python")
    args = parser.parse_args()
    cpu = False
    try:
        if args.extra == "dev":
            python = suitable_python(keep=bool(args.keep))
            print("Setting up in .venv (once; a few minutes) ...", flush=True)
            make_venv(python)
            cpu = wants_cpu_build(args.cpu, args.gpu)
        install(args.extra, args.constraints, cpu)
        quiet_jupyter()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    with open(os.path.join(VENV, "ready"), "w", encoding="utf-8") as file:
        file.write(os.getcwd() + "\n")


if __name__ == "__main__":
    main()
