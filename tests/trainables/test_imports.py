from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "ray", "datasets", "bitsandbytes", "pyarrow")


@pytest.mark.parametrize(
    "statement",
    ["import trainables.sft", "import trainables.settings", "import trainables.data.preparing", "import trainables.hf"],
)
def test_nothing_heavy_until_it_starts(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_ray_in_any_module() -> None:
    code = (
        "import pkgutil, importlib, sys, trainables\n"
        "for found in pkgutil.walk_packages(trainables.__path__, 'trainables.'):\n"
        "    importlib.import_module(found.name)\n"
        "print('ray' in sys.modules, sorted(n for n in sys.modules if n.startswith('tuner.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False ['tuner.contract']"


def test_preparing_needs_no_torch(sft_settings, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A plain tokenizer.json is read without it: that is 2 of the 4 s."""
    code = (
        "import sys\nfrom trainables.sft import SFT\n"
        f"SFT.prepare({sft_settings()!r}, {str(tmp_path)!r})\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
