"""Help answers at once: it imports click, and nothing that takes long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuner import __version__
from tuner.cli import COMMANDS

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "ray", "transformers", "optuna", "pydantic", "rich", "yaml", "numpy")


def python(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, **more)


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tuner.cli import run\n"
        f"code = run({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr


def test_plan_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tuner.cli import run\n"
        "code = run(['plan', '--model', 'org/name', '--data', 'org/data'])\n"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules], code)"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr


def test_help_names_every_command() -> None:
    done = python("-m", "tuner", "--help")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert tuple(listed) == COMMANDS


def test_version() -> None:
    assert python("-m", "tuner", "--version").stdout == f"tuner {__version__}\n"


def test_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m tuner plan --schema | true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0 where the pipe took it all before it closed
