"""The house rules: who may import whom, how long a file may be, what a wheel holds, how light planning stays."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("harness", "results", "adapters", "suites", "leaderboard")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
ALLOWED = {
    "results": set(),
    "harness": {"results"},
    "leaderboard": {"results"},
    "adapters": {"harness"},
    "suites": {"harness"},
}


def imported(path: Path) -> Iterator[str]:
    """Dotted names of this project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("weighin"):
            yield from ([f"weighin.{a.name}" for a in node.names] if node.module == "weighin" else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("weighin."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_who_may_import_whom(path: Path) -> None:
    mine = path.parent.name
    for name in imported(path):
        assert name.split(".")[1] in ALLOWED[mine] | {mine}, f"{mine}/{path.name} imports {name}"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 50, f"{function.name} has {length} lines"
        plain = [a for a in function.args.posonlyargs + function.args.args if a.arg not in ("self", "cls")]
        assert len(plain) <= 7, f"{function.name} takes {len(plain)} positional parameters"


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_public_things_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a file says at its head what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_no_folder_is_missing_from_the_package_table() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert table["package-dir"] == {f"weighin.{folder}": folder for folder in FOLDERS}
    assert set(table["packages"]) == set(table["package-dir"])
    for folder in FOLDERS:
        nested = [p for p in (ROOT / folder).rglob("*.py") if p.parent != ROOT / folder]
        assert not nested, f"a subfolder with code would be missing from the wheel: {nested}"
        assert (ROOT / ".src" / "weighin" / folder).resolve() == ROOT / folder, "the type checkers' links"
    assert not (ROOT / "adapters" / "__init__.py").exists(), "AdapterHub's `adapters` must be found from here"


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    source = tmp_path / "source"
    for name in [*tracked.stdout.split(), "pyproject.toml", "README.md", "LICENSE"]:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet"]
    command = [*pip, "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = set(wheel.namelist())
    missing = [name for name in tracked.stdout.split() if f"weighin/{name}" not in inside]
    assert not missing


HEAVY = {"torch", "transformers", "lm_eval", "llmcompressor", "peft", "datasets", "streamlit", "codecarbon", "ragas"}


@pytest.mark.parametrize("command", [["--help"], ["list"], ["plan", "default"], ["show", "gptq"], ["doctor"]])
def test_planning_stays_light(command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, json; from weighin.harness.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print('LOADED', sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=tmp_path)
    assert "LOADED []" in run.stdout, run.stdout + run.stderr


def test_help_imports_almost_nothing() -> None:
    """What makes `weighin --help` quick is what it does not import; a clock would only measure this machine."""
    code = (
        "import sys; from weighin.harness.cli import parser; parser().format_help()\n"
        "print(len(sys.modules), 'pydantic' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    count, pydantic = run.stdout.split()
    assert pydantic == "False" and int(count) < 150, run.stdout


def test_the_project_speaks_of_itself_alone() -> None:
    for path in [*FILES, ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        assert "/work/" not in text and "/tmp/" not in text, path
