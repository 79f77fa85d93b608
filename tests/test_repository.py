"""The files that must agree with each other, and the rules for imports."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import gencourse
from tools.setup import setup_env

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("data/*.md"), ROOT / "docs/teaching.md"])
PACKAGE = ROOT / "gencourse"
FILES = {  # "nets", "checks", "checks.lesson01" ...: the file
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = [name for name in FILES if not name.startswith("_")]

# conda's name for a package of PyPI, where the two differ.
CONDA_NAMES = {"pytorch": "torch"}


def ranges(lines: list[str]) -> dict[str, SpecifierSet]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in requirements}


def pyproject_ranges(*extras: str) -> dict[str, SpecifierSet]:
    optional = PYPROJECT["project"]["optional-dependencies"]
    lines = list(PYPROJECT["project"]["dependencies"])
    return ranges(lines + [line for extra in extras for line in optional[extra]])


def pins() -> dict[str, Version]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert len(set(names)) == len(names), "a package is pinned twice"
    return {
        n: Version(line.split("==")[1]) for n, line in zip(names, lines, strict=True)
    }


def environment_ranges() -> dict[str, SpecifierSet]:
    lines = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, str)]
    named = ranges([line for line in lines if line != "pip"])
    return {CONDA_NAMES.get(name, name): spec for name, spec in named.items()}


# --- versions -------------------------------------------------------------------------


def test_environment_names_what_pyproject_needs():
    named = environment_ranges()
    named.pop("python")
    assert named == pyproject_ranges("lab", "test")


def test_environment_ends_with_the_package_itself():
    assert ENVIRONMENT["name"] == "gencourse"
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    assert "pip" in ENVIRONMENT["dependencies"]
    assert ENVIRONMENT["dependencies"][-1] == {"pip": ["-e ."]}


@pytest.mark.parametrize("where", ["pyproject", "environment"])
def test_pinned_versions_lie_in_the_ranges(where):
    wanted = (
        pyproject_ranges("lab", "test", "docs", "browser", "slides", "scale")
        if where == "pyproject"
        else environment_ranges()
    )
    wanted.pop("python", None)
    pinned = pins()
    outside = {name: str(s) for name, s in wanted.items() if pinned.get(name) not in s}
    assert not outside


def test_torch_and_torchvision_belong_together():
    pinned = pins()
    assert (pinned["torch"], pinned["torchvision"]) == (
        Version("2.13.0"),
        Version("0.28.0"),
    )


def test_python_versions_agree():
    wanted = SpecifierSet(PYPROJECT["project"]["requires-python"])
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    tried = yaml.safe_load(workflow)["jobs"]["test"]["strategy"]["matrix"]["python"]
    allowed = [f"3.{n}" for n in range(30) if f"3.{n}" in wanted]
    assert tried == allowed == [f"{a}.{b}" for a, b in setup_env.VERSIONS]
    assert environment_ranges()["python"] == wanted


def test_actions_are_pinned_by_commit():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
        assert used
        for action in used:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v[\d.]+", action), action


def test_every_folder_of_the_package_is_installed():
    folders = {path.parent.relative_to(ROOT) for path in FILES.values()}
    names = sorted(".".join(folder.parts) for folder in folders)
    assert PYPROJECT["tool"]["setuptools"]["packages"] == names
    assert Version(gencourse.__version__)


# --- imports --------------------------------------------------------------------------

# Which file or folder may import which; within a folder all may, but for circles.
SIBLINGS = {
    "models": {"nets"},
    "steps": {"models", "losses"},
    "data": {"sources"},
    "faces": {"referee"},  # inside a function: the referee draws with faces
    "referee": {"faces", "nets", "store"},
    "metrics": {"faces", "losses", "nets"},
    "sources": {"faces"},
    "checks": {"plot", "faces", "language", "losses", "metrics", "store"},
    "plot": {"language"},
    "scale": {"data", "models", "sources", "steps", "store", "train"},
    "__main__": {"scale"},
}
ONLY_IN = {"matplotlib": {"plot"}, "ipywidgets": {"plot"}, "torchvision": set()}
ONLY_IN["lightning_fabric"] = {"scale"}
INSIDE_FUNCTIONS = {"matplotlib", "ipywidgets", "torchvision", "sklearn", "scipy"}
INSIDE_FUNCTIONS |= {"lightning_fabric"}
# Loaded inside a function themselves, and only there.
LATE = {f"checks.lesson0{n}" for n in range(1, 7)}
# What is imported under another name than its package's, or comes with a package.
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn", "cycler": "matplotlib"}
PACKAGES["IPython"] = "ipywidgets"


def imports(source: str) -> list[tuple[str, bool]]:
    """Return (what, whether at the top level) for each import of a module's source."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    imported = []
    for node in ast.walk(tree):
        top = id(node) not in inside
        if isinstance(node, ast.Import):
            imported += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"gencourse.{module}".rstrip(".")
            if module == "gencourse":
                imported += [(f"gencourse.{alias.name}", top) for alias in node.names]
            else:
                imported.append((module, top))
    return imported


def import_problems(name: str, source: str) -> list[str]:
    wing = name.split(".")[0]
    problems = []
    for what, top in imports(source):
        package, _, rest = what.partition(".")
        if package in ("tests", "notebooks", "tools"):
            problems.append(f"{name} imports {what}")
        theirs = rest.split(".")[0]
        if package == "gencourse" and theirs not in {wing} | SIBLINGS.get(wing, set()):
            problems.append(f"{name} imports its sibling {what}")
        if wing not in ONLY_IN.get(package, {wing}):
            problems.append(
                f"{name} imports {what}, which belongs to {ONLY_IN[package]}"
            )
        heavy = package in INSIDE_FUNCTIONS and name not in LATE
        if top and (heavy or any(rest.startswith(late) for late in LATE)):
            problems.append(f"{name} imports {what} outside a function")
    return problems


@pytest.mark.parametrize("name", FILES)
def test_import_rules(name):
    assert import_problems(name, FILES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nets", "from gencourse import losses"),
        ("nets", "from . import losses"),
        ("losses", "from gencourse.nets import Encoder"),
        ("data", "def f():\n    import gencourse.plot"),
        ("models", "from .losses import kl_to_prior"),
        ("metrics", "def f():\n    import matplotlib.pyplot as plt"),
        ("metrics", "from sklearn.decomposition import PCA"),
        ("data", "import torchvision"),
        ("train", "def f():\n    from torchvision.utils import make_grid"),
        ("plot", "import ipywidgets"),
        ("checks", "from gencourse.checks.lesson01 import EXERCISES"),
        ("scale.run", "from lightning_fabric import Fabric"),
        ("checks.compare", "from gencourse import data"),
        ("language", "from gencourse import plot"),
        ("train", "def f():\n    import lightning_fabric"),
        ("steps", "from tests import test_steps"),
    ],
)
def test_import_rules_can_be_broken(name, source):
    assert import_problems(name, source)


def test_imports_run_in_no_circle():
    order = TopologicalSorter(
        {
            name: {
                what.removeprefix("gencourse.") for what, top in imports(source) if top
            }
            & (FILES.keys() - {name})
            for name, source in (
                (n, path.read_text(encoding="utf-8")) for n, path in FILES.items()
            )
        }
    )
    assert list(order.static_order())


def test_every_module_is_named_in_the_package():
    assert sorted(gencourse.__all__) == [name for name in MODULES if "." not in name]
    assert set(gencourse.__all__) <= set(dir(gencourse))
    assert gencourse.losses.__name__ == "gencourse.losses"
    with pytest.raises(AttributeError, match="no attribute 'wrong'"):
        gencourse.wrong  # noqa: B018


def test_everything_imported_is_a_dependency():
    declared = set(pyproject_ranges("scale"))
    for name, path in FILES.items():
        for what, _ in imports(path.read_text(encoding="utf-8")):
            package = what.split(".")[0]
            if package in sys.stdlib_module_names | {"gencourse"}:
                continue
            package = canonicalize_name(PACKAGES.get(package, package))
            assert package in declared, f"{name} imports {what}"


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "matplotlib", "sklearn", "scipy", "ipywidgets"}
    code = f"import sys, gencourse; print(sorted({heavy} & set(sys.modules)))"
    assert python(code) == "[]"


def test_importing_every_module_does_no_work():
    modules = ", ".join(f"gencourse.{name}" for name in MODULES if name not in LATE)
    heavy = {"torchvision", "matplotlib", "sklearn", "ipywidgets", "lightning_fabric"}
    code = f"""
import os, random, sys
import numpy, torch
def state():
    return (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(),
            random.getstate(), torch.get_num_threads(), torch.get_default_dtype(),
            dict(os.environ))
before = state()
import {modules}
assert state() == before, "importing changed the state of the process"
print(sorted({heavy} & set(sys.modules)))
"""
    assert python(code) == "[]"


# --- what people read -----------------------------------------------------------------


def test_commands_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z -]+):", makefile, re.MULTILINE)
    targets = set(" ".join(rules).split())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(
            r"(?:`|^ *)make((?: [A-Z]+=\S*)*) ([a-z-]+)", text, re.MULTILINE
        )
        missing = {target for _, target in named} - targets
        assert not missing, f"{page.name} names {missing}"
    helped = set(
        re.findall(r"make ([a-z-]+)", makefile.split("help:")[1].split("ifneq")[0])
    )
    assert helped == targets - {"help"}


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_files_that_are_named_exist():
    named = 0
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:docs|gencourse|tests|tools)/[\w/.*]*)`", text):
            found = list(ROOT.glob(path.replace("0N", "0?").rstrip("/")))
            assert found, f"{page.name} names {path}"
            named += 1
    assert named > 40


def test_no_file_names_a_folder_of_one_machine():
    folders = "|".join(["home", "root", "tmp", "work", "Users", "opt", "mnt"])
    pattern = re.compile(rf"(?<![\w.:/*~)\]])/({folders})/[a-zA-Z]")
    assert pattern.search("see " + "/".join(["", "home", "someone"]))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("this copy of the course is not a git repository")
    for name in listed.stdout.decode().split("\0")[:-1]:
        path = ROOT / name
        # What a lesson may hold, tests/test_notebooks.py checks.
        if path.suffix in {".png", ".safetensors", ".ipynb"} or not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not pattern.search(line), f"{name}: {line}"


def test_the_code_in_the_readme_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    assert code.count("train_size=8000") == code.count("seconds=30") == 1
    code = code.replace("train_size=8000", "train_size=256, test_size=16")
    python(code.replace("seconds=30", "steps=2"))


def test_ci_runs_the_test_command():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111, ".ci/run is not executable"
    assert "\nmake test\n" in script.read_text(encoding="utf-8")
