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


def test_a_process_without_torch_for_a_while_has_it_afterwards() -> None:
    """While rows are looked at, transformers finds no torch; afterwards a model can be made."""
    code = (
        "import sys\nfrom trainables import imports, quiet\nquiet.before_imports()\n"
        "with imports.without_torch():\n"
        "    from transformers import AutoTokenizer, is_torch_available\n"
        "    assert AutoTokenizer and not is_torch_available()\n"
        "assert not any(name.partition('.')[0] in ('torch', 'transformers') for name in sys.modules)\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, is_torch_available\n"
        "small = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)\n"
        "print(is_torch_available(), LlamaForCausalLM(LlamaConfig(**small)).num_parameters() > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True True", done.stderr
