"""Secrets are found by their form or as values of the environment, and text that only resembles one is not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuner import redaction
from tuner.redaction import LogFile, RedactedStream, named_secret, redact, redacted

HEX40 = "0123456789abcdef0123456789abcdef01234567"
SECRETS = {
    "Hugging Face token": "hf_" + "aB3" * 11 + "x",
    "AWS access key": "AKIAIOSFODNN7EXAMPLE",
    "GitHub token": "ghp_" + "a1B2" * 9,
    "OpenAI key": "sk-proj-" + "aB_3-" * 10,
    "W&B key": "wandb_v1_" + "a1B2" * 10,
}


@pytest.mark.parametrize(("kind", "secret"), SECRETS.items())
@pytest.mark.parametrize("around", ["{}", "a {} b", '{{"x": "{}"}}', "TOKEN={}", "https://x.y/z?t={}&u=1", "({})\n"])
def test_by_form(kind: str, secret: str, around: str) -> None:
    assert redact(around.format(secret)) == around.format(f"[{kind}]")
    assert named_secret(around.format(secret)) == kind


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"WANDB_API_KEY={HEX40}", "WANDB_API_KEY=[W&B key]"),
        (f"wandb login --relogin key: {HEX40}", "wandb login --relogin key: [W&B key]"),
        (
            "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = [AWS secret]",
        ),
        ("Authorization: Bearer " + "q1W2" * 8, "Authorization: Bearer [bearer token]"),
        ("git clone https://me:s3cret@host/x.git", "git clone https://me:[password]@host/x.git"),
    ],
)
def test_by_what_stands_before_it(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"revision {HEX40}",
        "sk-learn and sk-image",
        "/data/hf_cache/models--Qwen--Qwen3-8B/snapshots/" + HEX40,
        "the key idea of AWS is money",
        "http://127.0.0.1:8265 and 10.0.0.1:6379",
        "python -m tuner search --model Qwen/Qwen3-8B --data s3://bucket/train.jsonl",
        "api key: none",
        "hf_hub_download",
        "AKIAshort",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text and named_secret(text) is None


def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"WANDB_API_KEY": HEX40, "DB_PASSWORD": "tr0ub4dor&3", "MY_SECRET": "true", "X_TOKEN": "/run/token"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    redaction._secrets_at.cache_clear()
    assert redact(f"commit {HEX40} by tr0ub4dor&3, true at /run/token") == (
        "commit [WANDB_API_KEY] by [DB_PASSWORD], true at /run/token"
    )
    redaction._secrets_at.cache_clear()


@dataclass(frozen=True)
class Fact:
    text: str
    number: int = 3


def test_whatever_holds_texts() -> None:
    secret = SECRETS["GitHub token"]
    assert redacted({secret: [secret, 1, (None, Fact(secret))]}) == {
        "[GitHub token]": ["[GitHub token]", 1, (None, Fact("[GitHub token]"))]
    }


def test_logs_with_tracebacks(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "a.log")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    secret = SECRETS["Hugging Face token"]
    try:
        raise ValueError(f"denied: {secret}")
    except ValueError:
        logger.exception("with %s", secret)
    handler.close()
    text = (tmp_path / "a.log").read_text()
    assert secret not in text and text.count("[Hugging Face token]") >= 2 and "Traceback" in text


def test_a_log_on_a_full_disk_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile("/dev/full")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("lost")
    handler.close()
    with open("/dev/full", "w") as file:
        stream = RedactedStream(file)
        print("lost", file=stream)
        stream.flush()
    assert capfd.readouterr() == ("", "")


def test_what_libraries_print_in_parts(tmp_path: Path) -> None:
    out = (tmp_path / "out").open("wb")
    stream = RedactedStream(out)
    secret = SECRETS["AWS access key"]
    for part in ("key ", secret[:9], secret[9:], "\n", "and ", secret):
        stream.write(part)
    stream.flush()
    assert (tmp_path / "out").read_text() == "key [AWS access key]\nand [AWS access key]"
