"""A base and rows in the cache are read without a request to the hub and without a lock, wherever the cache is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Count
from tests.conftest import text_rows, write_jsonl
from tests.programs.answering import Listener, answering, closed_port, listening
from tests.programs.hub import Hub, serving
from tests.trainables.hub_calls import end, pinned, settings_for, start
from trainables.hub import refusals
from trainables.hub.sources import HubSource
from tuner.contract import Preparation

BASE, ROWS = "a" * 40, "c" * 40
NOBODY = 65534


@pytest.fixture
def silent() -> Iterator[Listener]:
    """A proxy that accepts connections and never answers."""
    with listening() as proxy:
        yield proxy


@dataclass(frozen=True)
class Machine:
    """A hub, the cache of a machine with a base and rows of that hub, and settings that name them by commit."""

    hub: Hub
    home: Path
    settings: dict[str, Any]
    prepared: Preparation

    @property
    def snapshot(self) -> Path:
        return self.home / "hub" / "models--org--base" / "snapshots" / BASE

    def copy(self, folder: Path) -> Machine:
        shutil.copytree(self.home, folder, symlinks=True)
        return Machine(self.hub, folder, self.settings, self.prepared)


@pytest.fixture(scope="module")
def stocked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("stocked")
    with serving(folder / "hub") as hub:
        shutil.copytree(tiny_model, hub.commit("models", "org/base", BASE, "main"), dirs_exist_ok=True)
        write_jsonl(hub.commit("datasets", "org/rows", ROWS, "main") / "train.jsonl", text_rows())
        settings = pinned(settings_for(), {"model.model_revision": BASE, "data.revision": ROWS})
        made = json.loads(end(start(hub.url, folder / "home", "prepare", settings, str(folder / "data"))))
        yield Machine(hub, folder / "home", settings, Preparation(**{**made, "notes": tuple(made["notes"])}))


def through(proxy: str) -> dict[str, str]:
    """An environment in which all requests go through the proxy, even if this process has set exceptions."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), proxy)
    return {**proxies, "no_proxy": "", "NO_PROXY": ""}


@pytest.mark.parametrize("kind", ["closed", pytest.param("silent", marks=pytest.mark.chaos)])
def test_behind_a_dead_proxy_the_cache_answers_and_nobody_is_asked(
    stocked: Machine, tmp_path: Path, silent: Listener, fault: Count, kind: str
) -> None:
    before = stocked.hub.requests()
    proxy = silent.url if kind == "silent" else f"http://{closed_port()}"
    call = start(stocked.hub.url, stocked.home, "prepare", stocked.settings, str(tmp_path / "data"), **through(proxy))
    assert json.loads(end(call))["tokens"] == stocked.prepared.tokens
    assert (stocked.hub.requests(), silent.met) == (before, [])
    fault(f"a proxy that is {kind}, before the hub")


@pytest.mark.chaos
def test_what_the_cache_lacks_is_said_with_the_proxys_name(stocked: Machine, tmp_path: Path, silent: Listener) -> None:
    settings = pinned(stocked.settings, {"model.model_revision": "d" * 40})
    began = time.monotonic()
    told = end(start(stocked.hub.url, stocked.home, "prepare", settings, str(tmp_path), **through(silent.url)))
    assert f"org/base: no such folder, and as a hub id it is not in the cache at {'d' * 40}" in told
    assert f"does not answer at {stocked.hub.url} through the proxy {silent.place}" in told
    assert f"hf download org/base --revision {'d' * 40}" in told
    assert time.monotonic() - began < 60  # 10 s of it waiting


@pytest.mark.chaos
def test_a_cache_of_another_user_that_cannot_be_written(stocked: Machine, tmp_path: Path, fault: Count) -> None:
    machine = stocked.copy(tmp_path / "home")
    for file in (path for path in (machine.home / "hub" / ".locks").rglob("*") if path.is_file()):
        file.chmod(0o600)
        with contextlib.suppress(PermissionError):  # where the tests are not root's, nobody's locks are ours
            os.chown(file, NOBODY, NOBODY)
    for path in (*machine.home.rglob("*"), machine.home):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else path.stat().st_mode & 0o444)
    before = machine.hub.requests()
    call = start(machine.hub.url, machine.home, "prepare", machine.settings, str(tmp_path / "data"), plain=True)
    assert json.loads(end(call))["tokens"] == machine.prepared.tokens
    assert machine.hub.requests() == before
    # Another commit would have to be written to the cache
    other = pinned(machine.settings, {"model.model_revision": "e" * 40})
    shutil.copytree(machine.snapshot, machine.hub.commit("models", "org/base", "e" * 40), dirs_exist_ok=True)
    told = end(start(machine.hub.url, machine.home, "prepare", other, str(tmp_path / "more"), plain=True))
    assert "org/base: the hub's cache cannot be used for it (Permission denied" in told
    assert "set HF_HOME to a folder of your own" in told
    for path in (machine.home, *machine.home.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    fault("a hub cache of another user, that cannot be written")


@pytest.mark.chaos
@pytest.mark.parametrize("damage", ["gone", "cut off", "never arrived"])
def test_a_part_of_a_base_is_not_taken_for_the_whole(
    stocked: Machine, tmp_path: Path, fault: Count, damage: str
) -> None:
    machine = stocked.copy(tmp_path / "home")
    file = machine.snapshot / "model.safetensors"
    blob = file.resolve()
    match damage:
        case "gone":
            file.unlink()
            blob.unlink()
        case "cut off":
            blob.write_bytes(blob.read_bytes()[:1000])
        case _:
            blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    told = end(start(f"http://{closed_port()}", machine.home, "prepare", machine.settings, str(tmp_path / "data")))
    assert f"org/base at {BASE}: the cache has only a part of it: model.safetensors missing or cut off" in told
    assert f"hf download org/base --revision {BASE}" in told
    asked = len(machine.hub.requests())
    again = end(start(machine.hub.url, machine.home, "prepare", machine.settings, str(tmp_path / "data")))
    assert json.loads(again)["tokens"] == machine.prepared.tokens
    fetched = [line for line in machine.hub.requests()[asked:] if line.startswith("GET") and "/resolve/" in line]
    assert [line.rpartition("/")[2] for line in fetched] == ["model.safetensors"]
    fault("a part of a base in the hub's cache")


@pytest.mark.slow
def test_a_worker_and_a_merge_ask_nobody(stocked: Machine, tmp_path: Path, silent: Listener) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapter = get_peft_model(
        AutoModelForCausalLM.from_pretrained(stocked.snapshot, dtype=torch.float32), LoraConfig(r=2)
    )
    adapter.save_pretrained(str(tmp_path / "adapter"))
    before = stocked.hub.requests()
    calls = [
        start(stocked.hub.url, stocked.home, *call, **through(silent.url))
        for call in (
            ("work", stocked.settings, stocked.prepared),
            ("merge", stocked.settings, str(tmp_path / "adapter"), str(tmp_path / "merged")),
        )
    ]
    assert [json.loads(end(call)) for call in calls] == ["a worker", None]
    assert (stocked.hub.requests(), silent.met) == (before, [])
    assert {"model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"} <= {
        file.name for file in (tmp_path / "merged").iterdir()
    }


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "", "the hub has no model of this name, or none that this token may read"),
        (403, "", "is gated: the hub does not give it to this account"),
        (403, "GatedRepo", "accept its terms at https://huggingface.co/org/base"),
        (404, "RevisionNotFound", "the hub has no revision 'v1' of it"),
        (404, "RepoNotFound", "the hub has no model of this name"),
        (404, "", "the hub does not give it out (HTTP 404)"),
        (407, "", "the proxy asks for a name and a password"),
        (429, "", "too many questions from this account or address (HTTP 429)"),
        (500, "", "is in trouble (HTTP 500)"),
        (503, "", "try again later"),
    ],
)
def test_every_answer_of_the_hub_has_its_words(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, told: str
) -> None:
    import httpx2
    from huggingface_hub.utils import hf_raise_for_status

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/base")
    with pytest.raises(httpx2.HTTPError) as caught:
        hf_raise_for_status(httpx2.Response(status, headers={"X-Error-Code": code}, request=request))
    # Libraries wrap it in errors of their own
    around = FileNotFoundError("not there")
    around.__cause__ = caught.value
    assert told in str(refusals.in_words(around, HubSource("org/base", "model", "model.model_revision", "v1")))


def test_a_login_page_in_the_hubs_place_is_no_hub(tmp_path: Path) -> None:
    with answering(200, "<html>Log in</html>") as url:
        told = end(start(url, tmp_path / "home", "pin", settings_for()))
    assert f"org/base: what answers at {url} is no hub" in told and "a login page" in told
