"""Section `metrics`: what is measured of a trial's answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainables.settings.section import Section


class MetricSettings(Section):
    """Which metrics of answers a trial is measured by at its end. Without names, nothing is generated."""

    names: tuple[str, ...] = ()
    """Metrics by name: exact_match, contains, regex:PATTERN, json_fields, rouge_l, chrf, token_f1."""

    objective: str | None = None
    """The metric that the search makes better, one of `names`; null: the validation loss. Trials are judged at rungs by
    the loss in any case."""

    rows: int = Field(default=200, ge=1, le=200)
    """Validation rows that get an answer, at most: the same ones for every trial. Fewer are taken where answers would
    take more than a tenth of a trial's time."""

    max_answer_tokens: int | None = Field(default=None, ge=1, le=4096)
    """Tokens of an answer, at most; null: twice those of the rows' longest answer and 16, and at most 256."""

    @field_validator("names", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return tuple(given) if isinstance(given, list) else given

    @model_validator(mode="after")
    def _objective_is_measured(self) -> MetricSettings:
        if not self.names and (self.objective, self.rows, self.max_answer_tokens) != (None, 200, None):
            raise ValueError("without names, nothing is measured")
        labels = [name_of(spec) for spec in self.names]
        if len(set(labels)) < len(labels):
            raise ValueError("two metrics have the same name")
        if self.objective is not None and self.objective not in (*self.names, *labels):
            raise ValueError(f"objective is {self.objective!r}, and names has {', '.join(self.names) or 'nothing'}")
        return self


def name_of(spec: str) -> str:
    """The name under which a metric is written down: without what stands behind its colon."""
    return spec.partition(":")[0]


def _list_of_names(given: Any) -> Any:
    return {"names": given} if isinstance(given, list | tuple) else given


Metrics = Annotated[
    MetricSettings, BeforeValidator(_list_of_names, json_schema_input_type=list[str] | MetricSettings)
]  # fmt: skip
"""The section, or just a list of names."""
