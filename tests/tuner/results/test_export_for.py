"""An export for a server, from the command line; and what a search leaves beside its best adapter."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.chaos.runs import finished_run
from tests.tuner.report import searches
from tuner.cli import run
from tuner.contract import COMPANIONS
from tuner.results.adapters import checked_manifest, write_best, write_manifest
from tuner.results.folder import RunFolder

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The run folder of a finished search on the embedded base, with an adapter of rank 8 on one module."""
    path = finished_run(tmp_path)
    best = path / "best"
    said = {NAME.format(half): {"dtype": "F32", "shape": shape, "data_offsets": [5120 * at, 5120 * at + 5120]}
            for at, (half, shape) in enumerate((("A", [8, 160]), ("B", [160, 8])))}  # fmt: skip
    header = json.dumps(said).encode()
    (best / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(10240))
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "bias": "none", "target_modules": ["q_proj"]}
    (best / "adapter_config.json").write_text(json.dumps(config))
    write_manifest(best, {"name": "first", "trial": 1, "params": {}, "step": 100})
    (best / "stray.json").write_text("{}")
    return path


def test_an_export_for_vllm(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "to"
    assert run(["export", str(path), "--to", str(to), "--for", "vllm", "--no-compare"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("vllm serve ") and out.endswith(
        f" --enable-lora --max-lora-rank 8 --lora-modules first={to}\n"
    )
    assert "exported the adapter of first" in err and "compared" not in err
    written = {file.name for file in to.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json"} <= written
    assert not written & {"manifest.json", "train.yaml", "stray.json"}


def test_what_a_server_refuses_ends_with_2(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = json.loads((path / "best" / "adapter_config.json").read_text())
    (path / "best" / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    write_manifest(path / "best", {"name": "first", "trial": 1, "params": {}, "step": 100})
    assert run(["export", str(path), "--to", str(tmp_path / "to"), "--for", "vllm", "--no-compare"]) == 2
    _, err = capfd.readouterr()
    assert "vLLM cannot load this adapter: it is a DoRA adapter" in err
    assert "try: --for vllm --merge" in err and "Traceback" not in err
    assert run(["export", str(path), "--to", str(tmp_path / "to"), "--for", "tgi", "--no-compare"]) == 2
    assert "no server 'tgi'" in capfd.readouterr().err


def test_options_that_do_not_go_together(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(path), "--to", str(tmp_path / "to"), "--no-compare"]) == 2
    assert "--no-compare goes with --for" in capfd.readouterr().err
    assert run(["export", "first", "--to", str(tmp_path / "to"), "--for", "vllm", "--address", "http://x:1"]) == 2
    assert "an export for a server needs the base" in capfd.readouterr().err


def test_a_program_that_is_not_shipped_is_named(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resolved = json.loads((path / "resolved.json").read_text())
    resolved["run"]["program"] = "strange:Program"
    (path / "resolved.json").write_text(json.dumps(resolved))
    assert run(["export", str(path), "--to", str(tmp_path / "to"), "--for", "peft"]) == 2
    assert "an export for a server would run the program 'strange:Program'" in capfd.readouterr().err


def test_companions_are_copied_beside_the_best_adapter(path: Path) -> None:
    folder = RunFolder(path)
    adapter = folder.trial(1) / "adapter"
    (adapter / "adapter_config.json").write_text("{}")
    (folder.data / COMPANIONS).mkdir()
    for name, text in {"tokenizer.json": "{}", "chat_template.jinja": "t", "adapter_config.json": "[]"}.items():
        (folder.data / COMPANIONS / name).write_text(text)
    (folder.data / COMPANIONS / "link").symlink_to("/etc/passwd")
    record = searches.finished().record
    assert record.best is not None
    record.best.adapter = "adapters/0001/adapter"
    assert write_best(folder, record, train={}, resolved={}) == folder.best
    files = checked_manifest(folder.best)["files"]
    assert {"tokenizer.json", "chat_template.jinja", "adapter_config.json"} <= files.keys() and "link" not in files
    assert (folder.best / "adapter_config.json").read_text() == "{}", "the adapter's own files come first"
