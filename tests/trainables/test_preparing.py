from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import chat_completion_rows, completion_rows, make_model, message_rows, text_rows, write_jsonl
from trainables.data import store
from trainables.sft import SFT
from tuner.contract import COMPANIONS, Fault, InputError, Preparation, Reason

Make = Callable[..., dict[str, Any]]


def lengths(preparation: Preparation, name: str) -> list[int]:
    return [len(row) for row in store.open_set(preparation, name)["input_ids"]]


def test_facts(sft_settings: Make, tmp_path: Path) -> None:
    done = SFT.prepare(sft_settings(), tmp_path)
    train, validation = done.facts["train"], done.facts["validation"]
    assert (train["rows"], validation["rows"]) == (36, 12)
    assert done.tokens == train["tokens"] == sum(lengths(done, "train"))
    assert train["max_length"] == max(lengths(done, "train"))
    labels = store.open_set(done, "train")["labels"]
    assert train["label_tokens"] == sum(label != -100 for row in labels for label in row[1:])
    assert (train["dropped_rows"], done.facts["pad_token"], done.notes) == (0, "<|pad|>", ())
    json.dumps(done.facts)


def test_a_second_call_finds_the_first_ones_result(sft_settings: Make, tmp_path: Path) -> None:
    first = SFT.prepare(sft_settings(), tmp_path)
    written = (Path(first.folder) / "preparation.json").stat().st_mtime_ns
    assert SFT.prepare(sft_settings(), tmp_path) == first
    assert (Path(first.folder) / "preparation.json").stat().st_mtime_ns == written


def test_what_belongs_beside_an_adapter_is_kept(sft_settings: Make, tmp_path: Path, tiny_model: Path) -> None:
    """Written again where it is missing, and where the tokenizer is another one."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "preprocessor_config.json").write_text('{"size": 1}')
    template = tmp_path / "own.jinja"
    template.write_text("own {{ messages[0].content }}")
    settings = sft_settings(model={"model_name_or_path": str(model)}, data={"chat_template": str(template)})
    SFT.prepare(settings, tmp_path / "cache")
    kept = tmp_path / "cache" / COMPANIONS
    names = {file.name for file in kept.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"} <= names
    assert (kept / "chat_template.jinja").read_text() == "own {{ messages[0].content }}" and "config.json" not in names
    shutil.rmtree(kept)
    SFT.prepare(settings, tmp_path / "cache")
    assert {file.name for file in kept.iterdir()} == names
    template.write_text("another {{ messages[0].content }}")
    SFT.prepare(settings, tmp_path / "cache")
    assert (kept / "chat_template.jinja").read_text() == "another {{ messages[0].content }}"
    assert [file.name for file in (tmp_path / "cache").iterdir() if file.name.startswith(".")] == []


def test_the_recipe_does_not_matter_and_the_rows_do(sft_settings: Make, tmp_path: Path) -> None:
    first = SFT.prepare(sft_settings(), tmp_path)
    assert SFT.prepare(sft_settings(train={"lora_r": 2}), tmp_path).folder == first.folder
    assert SFT.prepare(sft_settings(data={"seed": 1}), tmp_path).folder != first.folder
    file = tmp_path / "rows.jsonl"
    folders = set()
    for number in (20, 21):
        write_jsonl(file, completion_rows(number))
        folders.add(SFT.prepare(sft_settings(data={"train": str(file)}), tmp_path).folder)
    assert len(folders) == 2


def test_another_tokenizer_is_another_preparation(sft_settings: Make, tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    settings = sft_settings(model={"model_name_or_path": str(model)})
    first = SFT.prepare(settings, tmp_path / "cache")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert SFT.prepare(settings, tmp_path / "cache").folder != first.folder


def test_a_race_has_one_winner_and_no_left_overs(sft_settings: Make, tmp_path: Path) -> None:
    SFT.prepare(sft_settings(), tmp_path / "warm")  # imports are not thread-safe, processes are what races
    done: list[Preparation] = []
    threads = [threading.Thread(target=lambda: done.append(SFT.prepare(sft_settings(), tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and len({preparation.folder for preparation in done}) == 1
    named = {"warm", "base.json", COMPANIONS, f"{COMPANIONS}.json", Path(done[0].folder).name}
    assert {path.name for path in tmp_path.iterdir()} == named


def test_the_split_is_made_once_from_the_seed(sft_settings: Make, tmp_path: Path) -> None:
    sets = []
    for cache, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = SFT.prepare(sft_settings(data={"seed": seed}), tmp_path / cache)
        sets.append([store.open_set(done, name)["input_ids"][:] for name in ("train", "validation")])
    assert sets[0] == sets[1] != sets[2]
    everything = sorted(sets[0][0] + sets[0][1])
    assert everything == sorted(sets[2][0] + sets[2][1])


def test_at_most_so_many_rows(sft_settings: Make, tmp_path: Path) -> None:
    done = SFT.prepare(sft_settings(data={"max_train_rows": 10, "max_validation_rows": 3}), tmp_path)
    assert (done.facts["train"]["rows"], done.facts["validation"]["rows"]) == (10, 3)


def test_no_pad_token_is_handled_and_said(tmp_path: Path, tiny_data: Path) -> None:
    model = make_model(tmp_path / "model", pad=False)
    settings = {"model": {"model_name_or_path": str(model)}, "data": {"train": str(tiny_data / "text.jsonl")}}
    done = SFT.prepare(settings, tmp_path / "cache")
    assert done.facts["pad_token"] == "<|end|>"
    assert "no pad token" in done.notes[0]


def test_rows_cut_and_dropped_are_said(sft_settings: Make, tmp_path: Path) -> None:
    done = SFT.prepare(sft_settings(data={"max_length": 10}), tmp_path)
    assert any("left out" in note for note in done.notes)
    assert any("longer than max_length=10" in note for note in done.notes)
    assert done.facts["train"]["dropped_rows"] > 0
    assert max(lengths(done, "train")) <= 10


def refused(settings: dict[str, Any], cache: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        SFT.prepare(settings, cache)
    return caught.value


def test_a_chat_format_without_a_template(tmp_path: Path, tiny_data: Path) -> None:
    model = make_model(tmp_path / "model", template=False)
    rows = {"train": str(tiny_data / "messages.jsonl")}
    error = refused({"model": {"model_name_or_path": str(model)}, "data": rows}, tmp_path)
    assert "no chat template" in error.what and "data.chat_template" in error.remedy
    template = tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}<|end|>{% endfor %}")
    done = SFT.prepare({"model": {"model_name_or_path": str(model)}, "data": {**rows, "chat_template": str(template)}},
                       tmp_path)  # fmt: skip
    assert done.facts["chat_template"]


def test_a_template_that_marks_no_turns(sft_settings: Make, tmp_path: Path, tiny_data: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    data = {"train": str(tiny_data / "messages.jsonl"), "chat_template": str(template), "assistant_only_loss": True}
    assert "does not mark" in refused(sft_settings(data=data), tmp_path).what


@pytest.mark.parametrize(("rows", "key"), [("text", "assistant_only_loss"), ("messages", "completion_only_loss")])
def test_a_mask_the_format_has_not(sft_settings: Make, tmp_path: Path, tiny_data: Path, rows: str, key: str) -> None:
    error = refused(sft_settings(data={"train": str(tiny_data / f"{rows}.jsonl"), key: True}), tmp_path)
    assert error.where == f"data.{key}"


@pytest.mark.parametrize(
    ("remove", "what"),
    [("tokenizer*", "no tokenizer"), ("config.json", "no config.json"), ("*.safetensors", "no safetensors weights")],
)
def test_an_incomplete_model_folder(
    sft_settings: Make, tmp_path: Path, tiny_model: Path, remove: str, what: str
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for path in model.glob(remove):
        path.unlink()
    error = refused(sft_settings(model={"model_name_or_path": str(model)}), tmp_path)
    assert what in error.what and error.where == str(model)


def test_a_broken_tokenizer(sft_settings: Make, tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "tokenizer.json").write_text("{}")
    error = refused(sft_settings(model={"model_name_or_path": str(model)}), tmp_path)
    assert "cannot be loaded" in error.what


def test_an_adapter_is_no_base(sft_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    error = refused(sft_settings(model={"model_name_or_path": str(tmp_path)}), tmp_path)
    assert "adapter" in error.what and "org/base" in error.remedy


def test_a_missing_model(sft_settings: Make, tmp_path: Path) -> None:
    error = refused(sft_settings(model={"model_name_or_path": str(tmp_path / "none")}), tmp_path)
    assert "no such folder" in error.what


def test_the_tokenizer_of_another_model(sft_settings: Make, tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    assert "the model has 100 tokens" in refused(sft_settings(model={"model_name_or_path": str(model)}), tmp_path).what


def faulted(settings: dict[str, Any], cache: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        SFT.prepare(settings, cache)
    assert caught.value.reason is Reason.DATA
    return caught.value


def test_completions_beyond_max_length(sft_settings: Make, tmp_path: Path) -> None:
    rows = [{"prompt": "cat " * 40, "completion": "dog"} for _ in range(10)]
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    fault = faulted(sft_settings(data={"train": file, "max_length": 16}), tmp_path)
    assert "training set is empty" in fault.message
    assert "every completion lies beyond max_length=16: the longest prompt has" in fault.message
    assert "data.max_length" in fault.remedy


def test_a_validation_set_that_filtering_empties(sft_settings: Make, tmp_path: Path) -> None:
    rows = [{"prompt": "cat " * 40, "completion": "dog"}]
    file = str(write_jsonl(tmp_path / "validation.jsonl", rows))
    fault = faulted(sft_settings(data={"validation": file, "max_length": 16}), tmp_path)
    assert "the validation set is empty" in fault.message


def test_rows_that_are_all_empty(sft_settings: Make, tmp_path: Path) -> None:
    file = str(write_jsonl(tmp_path / "rows.jsonl", [{"text": ""} for _ in range(4)]))
    error = refused({**sft_settings(), "data": {"train": file, "format": "text"}}, tmp_path)
    assert error.what == "'text' is empty (and 3 more of 4 rows cannot be used)"


def test_conversations_without_an_assistant(sft_settings: Make, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}]} for _ in range(4)]
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    fault = faulted(sft_settings(data={"train": file, "assistant_only_loss": True}), tmp_path)
    assert "no row has a token of the assistant" in fault.message


def test_one_row_cannot_be_split(sft_settings: Make, tmp_path: Path) -> None:
    file = str(write_jsonl(tmp_path / "rows.jsonl", completion_rows(1)))
    assert "none of it can be split off" in refused(sft_settings(data={"train": file}), tmp_path).what


@pytest.mark.parametrize("rows", [text_rows(9), completion_rows(9), chat_completion_rows(9), message_rows(9)])
def test_validation_has_the_format_of_training(
    sft_settings: Make, tmp_path: Path, tiny_data: Path, rows: list[dict[str, Any]]
) -> None:
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    own = str(write_jsonl(tmp_path / "own.jsonl", rows))
    assert SFT.prepare(sft_settings(data={"train": file, "validation": own}), tmp_path).facts["validation"]["rows"] == 9
    for other in tiny_data.glob("*.jsonl"):
        settings = sft_settings(data={"train": file, "validation": str(other)})
        if set(json.loads(other.read_text().splitlines()[0])) != set(rows[0]):
            error = refused(settings, tmp_path)
            assert "the training rows" in error.what and error.where == str(other)


def test_text_does_not_validate_completions(sft_settings: Make, tmp_path: Path, tiny_data: Path) -> None:
    error = refused(sft_settings(data={"validation": str(tiny_data / "text.jsonl")}), tmp_path)
    assert error.what == "the validation rows are text, the training rows prompt-completion"


@pytest.mark.parametrize(
    ("template", "what", "place"),
    [
        ("{% for m in messages %}{{ m.content }", "the chat template is malformed", "template"),
        ("{% if %}", "the chat template is malformed", "template"),
        ("{{ raise_exception('no ' + messages[0].role) }}", "does not take this row (TemplateError: no user)", "row"),
        ("{{ messages[7].content.text }}", "does not take this row (UndefinedError", "row"),
        ("{{ 1 / 0 }}", "does not take this row (ZeroDivisionError", "row"),
        ("always the same<|end|>", "ignores the messages: it writes 'always the same", "template"),
        ("{{ messages | length }}<|end|>", "ignores the messages", "template"),
    ],
)
def test_a_template_that_cannot_work(
    sft_settings: Make, tmp_path: Path, tiny_data: Path, template: str, what: str, place: str
) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(template)
    rows = tiny_data / "messages.jsonl"
    error = refused(sft_settings(data={"train": str(rows), "chat_template": str(file)}), tmp_path)
    assert what in error.what
    assert error.where.startswith(str(file if place == "template" else rows))


def test_a_row_that_a_template_does_not_take_is_named(sft_settings: Make, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.content + '<|end|>' }}{% endfor %}")
    rows = [*message_rows(5), {"messages": [{"role": "user", "content": 7}]}]
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    other = str(write_jsonl(tmp_path / "other.jsonl", rows[:5]))
    data = {"train": file, "validation": other, "chat_template": str(template)}
    assert refused(sft_settings(data=data), tmp_path).where == f"{file}:6"


@pytest.mark.parametrize(
    "extra", [{"tools": "no json"}, {"chat_template_kwargs": 3}, {"chat_template_kwargs": {"tokenize": 0}}]
)
def test_what_stands_beside_the_messages_is_checked(sft_settings: Make, tmp_path: Path, extra: dict[str, Any]) -> None:
    file = str(write_jsonl(tmp_path / "rows.jsonl", [{**row, **extra} for row in message_rows(4)]))
    assert refused(sft_settings(data={"train": file}), tmp_path).where.startswith(file)


def test_rows_longer_than_the_base_s_positions_are_said(sft_settings: Make, tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 20}))
    for place, said in ((tiny_model, False), (model, True)):
        done = SFT.prepare(sft_settings(model={"model_name_or_path": str(place)}), tmp_path / "cache")
        assert any("says that the base has 20 positions" in note for note in done.notes) is said
