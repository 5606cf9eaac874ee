"""The metrics of an answer, each on cases whose value can be counted by hand."""

from __future__ import annotations

import math

import pytest

from trainables.answers import metrics
from tuner.contract import InputError

CASES: list[tuple[str, str, str, float]] = [
    # metric, the row's own answer, the model's, the value
    ("exact_match", "Paris", " Paris\n", 1),
    ("exact_match", "a  b", "a b", 1),
    ("exact_match", "Paris", "paris", 0),
    ("contains", "42", "The answer is 42.", 1),
    ("contains", "42", "The answer is 24.", 0),
    ("regex:#### (-?\\d+)", "2 + 3 = 5\n#### 5", "first #### 4, no: #### 5", 1),
    ("regex:#### (-?\\d+)", "#### 5", "5", 0),
    ("regex:#### (-?\\d+)", "5", "so #### 5", 1),
    ("regex:\\d+", "in 1912", "1900 or 1912", 1),
    ("json_fields", '{"a": 1, "b": {"c": "x", "d": null}}', 'Here: ```json\n{"a": 1, "b": {"c": "y"}}\n```', 1 / 3),
    ("json_fields:b", '{"a": 1, "b": {"c": "x", "d": 2}}', '{"b": {"c": "x", "d": 2}}', 1),
    ("json_fields", '{"a": true}', '{"a": 1}', 0),
    ("json_fields", '{"a": 1}', "no { JSON", 0),
    # longest common subsequence "the cat sat": 3 of 4 and of 5 words
    ("rouge_l", "The cat sat down", "the black cat then sat", 2 * 3 / 9),
    ("rouge_l", "Straße über", "STRASSE über", 0.5),
    ("rouge_l", "a b", "", 0),
    # SQuAD leaves out articles and punctuation: "cat sat" and "cat sat down"
    ("token_f1", "The cat sat.", "a cat sat, down", 2 * 2 / 5),
    ("token_f1", "the", "", 1),
]


@pytest.mark.parametrize(("spec", "reference", "answer", "value"), CASES)
def test_values(spec: str, reference: str, answer: str, value: float) -> None:
    metric, score = metrics.find(spec)
    assert score("prompt", reference, answer) == pytest.approx(value) and metric.direction == "maximize"


def test_chrf_is_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="in the extra `metrics`")
    _, score = metrics.find("chrf")
    known = sacrebleu.sentence_chrf("the cat sat on a mat", ["the cat sat on the mat"]).score
    assert score("", "the cat sat on the mat", "the cat sat on a mat") == pytest.approx(known / 100)
    assert 0 < known < 100 and math.isclose(score("", "same", "same"), 1)


@pytest.mark.parametrize(
    ("spec", "what", "expected"),
    [
        ("rouge", "no metric 'rouge'", "rouge_l"),
        ("rouge_l:2", "takes nothing behind its name", "rouge_l"),
        ("regex", "no pattern is given", "a pattern"),
        ("regex:(", "cannot be read", "a pattern"),
    ],
)
def test_what_is_no_metric_is_refused(spec: str, what: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        metrics.find(spec, "--metric")
    assert what in caught.value.what and expected in caught.value.expected and caught.value.where == "--metric"


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    metrics._chrf.cache_clear()
    with pytest.raises(InputError) as caught:
        metrics.find("chrf")
    assert "needs sacrebleu" in caught.value.what and "pip install" in caught.value.remedy


def test_a_reference_without_json_raises() -> None:
    _, score = metrics.find("json_fields")
    with pytest.raises(ValueError, match="no JSON object"):
        score("", "plain text", '{"a": 1}')
