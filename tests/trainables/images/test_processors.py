"""A processor that cannot be loaded is refused with what is to be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainables.images import image_bases
from trainables.images import processors
from trainables.settings import Settings
from tuner.contract import InputError


def test_a_processor_whose_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", None)  # as transformers has it where it is not installed
    base = image_bases.save("idefics3", tmp_path / "base")
    for name in ("config.json", *processors.FILES):
        if (base / name).is_file():
            said = json.loads((base / name).read_text()) | {"processor_class": "SmolVLMProcessor"}
            (base / name).write_text(json.dumps(said | ({"model_type": "smolvlm"} if name == "config.json" else {})))
    settings = Settings.model_validate({"model": {"model_name_or_path": str(base)}, "data": {"train": "a.jsonl"}})
    with pytest.raises(InputError, match="its processor needs the package num2words, which is not installed") as caught:
        processors.load(settings.model, settings.data)
    assert caught.value.where == str(base) and "pip install num2words" in caught.value.remedy


def _of_transformers(name: str) -> ImportError:
    from transformers.utils import import_utils

    return ImportError(getattr(import_utils, name).format("XProcessor"))


@pytest.mark.parametrize(
    ("constant", "package"),
    [
        ("TORCHVISION_IMPORT_ERROR", "torchvision"),
        ("SENTENCEPIECE_IMPORT_ERROR", "sentencepiece"),
        ("SKLEARN_IMPORT_ERROR", "scikit-learn"),
        ("BS4_IMPORT_ERROR", "beautifulsoup4"),
        ("LEVENSHTEIN_IMPORT_ERROR", "python-levenshtein"),
    ],
)
def test_the_package_that_transformers_misses(constant: str, package: str) -> None:
    assert processors.missing_package(_of_transformers(constant)) == package


def test_the_package_that_a_base_s_own_code_misses() -> None:
    told = "This modeling file requires the following packages that were not found in your environment: a, b. "
    assert processors.missing_package(ImportError(told + "Run `pip install a b`")) == "a b"
    with pytest.raises(ModuleNotFoundError) as caught:
        __import__("nowhere_to_be_found.part")
    assert processors.missing_package(caught.value) == "nowhere_to_be_found"
    assert processors.missing_package(ImportError("cannot import name 'x' from 'json'")) == ""
