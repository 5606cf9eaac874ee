"""The tokenizer gives the tokens of the one that AutoTokenizer loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from trainables.data import tokenizers
from trainables.settings import ModelSettings

TEXT = "def load(self, path):\n        return self.tk.call(path)  # 1234567 naïve\n"


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "mistral", "gemma2", "phi3", "gpt_neox"])
def test_text_is_split_as_auto_tokenizer_splits_it(tiny_model: Path, tmp_path: Path, model_type: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    ours, _ = tokenizers.load(ModelSettings(model_name_or_path=str(folder)))
    assert ours(TEXT)["input_ids"] == AutoTokenizer.from_pretrained(str(folder))(TEXT)["input_ids"]
