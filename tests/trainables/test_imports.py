from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trainables

HEAVY = ("torch", "transformers", "trl", "peft", "ray", "datasets", "bitsandbytes", "pyarrow")


@pytest.mark.parametrize(
    "statement",
    ["import trainables.sft", "import trainables.settings", "import trainables.preparing", "import trainables.hf"],
)
def test_nothing_heavy_until_it_starts(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_program_knows_the_contract_alone() -> None:
    """Every import statement of every module, the deferred ones too."""
    for file in Path(trainables.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in filter(None, names):
                assert name.partition(".")[0] not in ("ray", "optuna"), file
                assert name.partition(".")[0] != "tuner" or name == "tuner.contract", file


def test_preparing_needs_no_torch(sft_settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """A plain tokenizer.json is read without it: that is 2 of the 4 s."""
    code = (
        "import sys\nfrom trainables.sft import SFT\n"
        f"SFT.prepare({sft_settings()!r}, {str(tmp_path)!r})\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
