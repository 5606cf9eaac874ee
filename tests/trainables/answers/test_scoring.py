"""A base and an adapter that a trial trained, scored side by side on the same rows."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import completion_rows, make_model, text_rows, write_jsonl
from trainables.answers import measuring, metrics
from trainables.answers.prompts import Prompt
from trainables.sft import SFT
from tuner.contract import MODEL, Assignment, InputError, ScoreRequest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sft_settings: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A trial of 30 steps: its settings, its adapter, its validation rows, and the loss that it measured on them."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    rows = completion_rows(40)
    train, test = write_jsonl(folder / "train.jsonl", rows[:30]), write_jsonl(folder / "test.jsonl", rows[30:])
    settings = sft_settings(
        data={"train": str(train), "validation": str(test)},
        train={"max_steps": 30, "learning_rate": 2e-2, "per_device_eval_batch_size": 16},
    )
    program = SFT(settings, SFT.prepare(settings, folder / "cache"))
    (folder / "trial").mkdir()
    program.start(Assignment(0, {}, 7, (1.0,), str(folder / "trial")))
    last = program.step()
    program.stop()
    assert last.adapter is not None
    return {"settings": settings, "adapter": last.adapter, "test": str(test), "loss": last.eval_loss, "folder": folder}


def request(trained: dict[str, Any], **more: Any) -> ScoreRequest:
    asked = {"metrics": ("exact_match", "rouge_l"), "most_tokens": 12, "format": "prompt-completion", **more}
    return ScoreRequest(trained["test"], {"base": MODEL, "winner": trained["adapter"]}, **asked)


def test_losses_answers_and_metrics(trained: dict[str, Any]) -> None:
    found = SFT.score(trained["settings"], request(trained, also=trained["test"]))
    base, winner = found.candidates
    targets = [row.targets for row in found.rows]
    per_token = sum(winner.losses) / sum(targets)
    # one validation batch: the trial's own loss is the mean over its tokens
    assert per_token == pytest.approx(trained["loss"], abs=1e-5)
    assert per_token < sum(base.losses) / sum(targets), "it was trained"
    assert winner.also == pytest.approx(winner.losses) and found.also == targets
    assert [row.where.rpartition(":")[2] for row in found.rows] == [str(line) for line in range(1, 11)]
    for row, answer, value in zip(found.rows, winner.answers, winner.metrics["rouge_l"], strict=True):
        assert row.answered and answer is not None and row.prompt.endswith("=>")
        assert value == metrics.find("rouge_l")[1](row.prompt, row.reference, answer)
    assert winner.answers != base.answers and found.directions == {"exact_match": "maximize", "rouge_l": "maximize"}


def test_a_sample_is_drawn_from_a_seed(trained: dict[str, Any]) -> None:
    def answered(seed: int) -> list[int]:
        asked = request(trained, most_answers=3, seed=seed, most_tokens=2)
        rows = SFT.score(trained["settings"], asked).rows
        return [at for at, row in enumerate(rows) if row.answered]

    first = answered(1)
    assert len(first) == 3 and first == answered(1) and first != answered(2)


def test_an_adapter_beside_the_base_that_it_names(trained: dict[str, Any]) -> None:
    source = trained["adapter"]
    asked = request(trained, source=source, made_of=SFT.made_of(trained["settings"])["made_of"], answers=False)
    found = SFT.score(None, asked)
    assert sum(found.candidates[1].losses) == pytest.approx(
        sum(SFT.score(trained["settings"], request(trained, answers=False)).candidates[1].losses)
    )
    assert not any(row.answered for row in found.rows)


def test_a_base_that_has_changed_is_refused(trained: dict[str, Any], tmp_path: Path) -> None:
    known = SFT.made_of(trained["settings"])["made_of"]
    adapter = Path(shutil.copytree(trained["adapter"], tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(make_model(tmp_path / "other", seed=5))
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    asked = ScoreRequest(trained["test"], {"base": MODEL, "adapter": str(adapter)}, source=str(adapter), made_of=known)
    with pytest.raises(InputError, match=r"is not the one that the adapter was trained on: .*model\.safetensors"):
        SFT.score(None, asked)


def test_an_adapter_of_another_base_is_refused(trained: dict[str, Any], tmp_path: Path) -> None:
    import safetensors.torch

    adapter = Path(shutil.copytree(trained["adapter"], tmp_path / "adapter"))
    tensors = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(renamed, adapter / "adapter_model.safetensors")
    asked = ScoreRequest(trained["test"], {"base": MODEL, "winner": str(adapter)}, answers=False)
    with pytest.raises(InputError, match="do not belong to this base"):
        SFT.score(trained["settings"], asked)
    wider = {name: tensor.repeat(1, 2) for name, tensor in tensors.items()}
    safetensors.torch.save_file(wider, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"the adapter does not fit the base: .*size mismatch"):
        SFT.score(trained["settings"], asked)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "no rows: it is empty"),
        (text_rows(3), "the rows are text, and the trials learned from prompt-completion rows"),
        ([{"prompt": "the cat =>", "completion": "  "}], "'completion' is empty"),
    ],
    ids=["empty", "another format", "nothing to predict"],
)
def test_rows_that_cannot_be_scored(
    trained: dict[str, Any], tmp_path: Path, rows: list[dict[str, Any]], what: str
) -> None:
    asked = ScoreRequest(
        str(write_jsonl(tmp_path / "rows.jsonl", rows)), {"base": MODEL}, ("rouge_l",), format="prompt-completion"
    )
    with pytest.raises(InputError) as caught:
        SFT.score(trained["settings"], asked)
    assert what in str(caught.value)


def test_texts_have_a_loss_and_no_answers(trained: dict[str, Any], tmp_path: Path) -> None:
    rows = str(write_jsonl(tmp_path / "rows.jsonl", text_rows(3)))
    with pytest.raises(InputError) as caught:
        SFT.score(trained["settings"], ScoreRequest(rows, {"base": MODEL}, ("rouge_l",)))
    assert "no row has a prompt and an answer: the rows are text" in caught.value.what
    assert caught.value.remedy == "--no-answers"
    found = SFT.score(trained["settings"], ScoreRequest(rows, {"base": MODEL}, answers=False))
    assert all(math.isfinite(loss) and loss > 0 for loss in found.candidates[0].losses)


def test_a_metric_that_fails_for_a_row_has_no_values() -> None:
    asked = [Prompt(at, [1], "p", "r") for at in range(3)]

    def raises(prompt: str, reference: str, answer: str) -> float:
        return 1 / int(answer)

    values, why = measuring.values_of(raises, asked, ["1", "0", "2"])
    assert values == [] and "ZeroDivisionError" in why and "return 1 / int(answer)" in why
    values, why = measuring.values_of(lambda *_: math.nan, asked, ["1", "0", "2"])
    assert values == [] and why == "gave nan for the answer '1'"
    assert measuring.values_of(lambda *_: True, asked, ["1", "0", "2"]) == ([1.0, 1.0, 1.0], "")
