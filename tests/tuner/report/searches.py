"""Makes searches by hand, event by event, as a driver writes them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuner.contract import Reason, Verdict
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord

LABELS = {
    "lora_alpha_mode": "alpha",
    "lora_dropout": "dropout",
    "effective_batch_size": "batch",
    "warmup_ratio": "warmup",
    "target_modules": "targets",
    "lr_scheduler_type": "schedule",
}

STEPS = 100
PLACES = (4, 11, 20, 33, 45, 60, 80, 100)

RECIPE_PARAMS = {"learning_rate": 3e-4, "lora_r": 16, "lora_alpha_mode": "fixed", "effective_batch_size": 16}


def params(rate: float, r: int, mode: str, batch: int) -> dict[str, Any]:
    return {"learning_rate": rate, "lora_r": r, "lora_alpha_mode": mode, "effective_batch_size": batch}


class Tape:
    """Makes events one second after another, and keeps them."""

    def __init__(self, name: str = "first", num_trials: int = 8, workers: int = 2) -> None:
        self.events: list[Event] = []
        self.time = 1000.0
        self.attempts: dict[int, int] = {}
        self.say(Kind.SEARCH, details={"name": name, "num_trials": num_trials, "workers": workers})

    def say(self, kind: Kind, after: float = 1.0, **values: Any) -> None:
        self.time += after
        self.events.append(Event(kind, time=self.time, **values))

    def prepared(self, *notes: str) -> None:
        facts = {
            "format": "prompt-completion",
            "train": {"rows": 3912, "tokens": 402_113, "label_tokens": 98_231},
            "validation": {"rows": 871, "tokens": 90_417, "label_tokens": 21_870},
            "data_fingerprint": "5f1d",
        }
        self.say(Kind.PREPARED, after=4, details={"facts": facts, "notes": list(notes)})

    def start(self, number: int, values: dict[str, Any], drawn_from: Mapping[str, str] | None = None) -> None:
        self.attempts[number] = self.attempts.get(number, 0) + 1
        details = {"distributions": {name: drawn_from[name] for name in values}} if drawn_from else {}
        self._of(Kind.STARTED, number, params=values, details=details)

    def setup(self, number: int, **more: Any) -> None:
        details = {
            "max_steps": STEPS,
            "trainable_parameters": 161_480_704,
            "total_parameters": 8_352_000_000,
            "accumulation": 2,
            **more,
        }
        self._of(Kind.SETUP, number, details=details)

    def evaluate(self, number: int, step: int, loss: float | None) -> None:
        rest = {"train_loss": loss and loss * 0.97, "seconds": step * 0.4 + 2, "memory": 21_400_000_000}
        self._of(Kind.EVALUATION, number, step=step, tokens=step * 2000, metrics={"eval_loss": loss}, details=rest)

    def end(self, number: int, verdict: Verdict, **details: str) -> None:
        said = {"message": verdict.message, "remedy": verdict.remedy, **details}
        self._of(Kind.ENDED, number, status=str(verdict.status), reason=str(verdict.reason), details=said)

    def retry(self, number: int, reason: Reason, **details: Any) -> None:
        self._of(Kind.RETRY, number, reason=str(reason), details=details)

    def park(self, number: int) -> None:
        self._of(Kind.PARKED, number)

    def interrupt(self, number: int) -> None:
        self._of(Kind.INTERRUPTED, number)

    def trial(
        self,
        number: int,
        values: dict[str, Any],
        losses: Sequence[float | None],
        verdict: Verdict | None,
        drawn_from: Mapping[str, str] | None = None,
    ) -> None:
        """Adds all events of a trial: started, set up, evaluated, ended. drawn_from: its distributions, as JSON."""
        self.start(number, values, drawn_from)
        self.setup(number)
        for step, loss in zip(PLACES, losses, strict=False):
            self.evaluate(number, step, loss)
        if verdict:
            self.end(number, verdict)

    def finish(self, outcome: str = "done", **values: Any) -> None:
        self.say(Kind.FINISHED, details={"outcome": outcome, **values.pop("details", {})}, **values)

    @property
    def record(self) -> SearchRecord:
        return SearchRecord.fold(self.events)

    def _of(self, kind: Kind, number: int, **values: Any) -> None:
        self.say(kind, trial=f"t{number:03d}", number=number, attempt=self.attempts[number], **values)


BUDGET = Verdict(Reason.BUDGET, "budget")
FLAT = Verdict(Reason.FLATLINE, "flat, 3 evaluations within 0.001 of its best")


def rung(number: int, loss: float, needed: float) -> Verdict:
    return Verdict(Reason.RUNG, f"rung {number} ({loss:.3f}, needed {needed:.3f})")


def _trials(tape: Tape, upto: int) -> None:
    wholes = [
        (RECIPE_PARAMS, [7.21, 6.6, 6.0, 5.6, 5.3, 5.1, 4.95, 4.874], BUDGET),
        (params(2.9e-3, 64, "2r", 8), [7.0, 5.6, 5.0, 4.7, 4.5, 4.4, 4.35, 4.312], BUDGET),
        (params(1.2e-4, 8, "fixed", 8), [7.4, 6.402], rung(1, 6.402, 5.91)),
        (params(3.4e-3, 16, "2r", 32), [6.9, 5.5, 4.9, 4.6, 4.345, 4.341, 4.34], FLAT),
        (params(4.1e-2, 16, "2r", 8), [4.7, 9.87], Verdict(Reason.DIVERGED, "diverged (2.1 times its first loss)")),
        (params(8.8e-2, 64, "rslora", 8), [math.nan], Verdict(Reason.DIVERGED, "diverged (loss nan)")),
    ]
    for number, (values, losses, verdict) in enumerate(wholes[:upto]):
        tape.trial(number, values, losses, verdict)


def finished() -> Tape:
    """Eight trials with every common ending; one ran out of memory."""
    tape = Tape()
    tape.prepared("the tokenizer has no pad token: using its EOS token")
    _trials(tape, 6)
    tape.trial(6, params(1.1e-3, 64, "2r", 64), [], None)
    remedy = "lower train.per_device_train_batch_size, or data.max_length"
    tape.end(6, Verdict(Reason.OUT_OF_MEMORY, "out of memory in the forward pass (139.2 of 139.8 GiB)", remedy))
    tape.trial(7, params(9.7e-4, 32, "rslora", 16), [7.1, 5.9, 5.41, 5.2], rung(2, 5.2, 4.71))
    tape.finish("failed")
    return tape


def running() -> Tape:
    """A search in the middle: two trials run, one is being set up."""
    tape = Tape(num_trials=16, workers=3)
    tape.prepared("the tokenizer has no pad token: using its EOS token")
    _trials(tape, 5)
    tape.trial(5, params(1.9e-3, 32, "2r", 16), [7.0, 5.5, 4.9], None)
    tape.trial(6, params(7.1e-4, 4, "rslora", 64), [7.3], None)
    tape.start(7, params(6.6e-3, 32, "fixed", 32))
    return tape


def recorded() -> Tape:
    """Sixteen trials on two GPUs, for pictures: the first one ends without a step, another one with a long reason."""
    tape = Tape(name="code-8b", num_trials=16, workers=2)
    tape.events[0] = replace(tape.events[0], details={**tape.events[0].details, "gpus_per_trial": 1.0})
    tape.prepared("the Ray dashboard: http://127.0.0.1:8265 (its token: ray get-auth-token)")
    tape.start(0, RECIPE_PARAMS)
    tape.setup(0, node="gpu-1")
    remedy = "lower train.per_device_train_batch_size, or data.max_length"
    tape.end(0, Verdict(Reason.OUT_OF_MEMORY, "out of memory in the forward pass (139.2 of 139.8 GiB)", remedy))
    for number in range(1, 16):
        mode = ("2r", "fixed", "rslora")[number % 3]
        values = params(10 ** (-4 + number * 7 % 16 / 8), 2 ** (2 + number % 5), mode, 8 << number % 3)
        upto, verdict = {0: (8, BUDGET), 1: (2, rung(1, 5.9, 5.4)), 2: (4, rung(2, 5.2, 4.9))}[number % 3]
        if number == 5:
            verdict = Verdict(
                Reason.ERROR, "RuntimeError: " + "the device reports an error nobody has seen before " * 3
            )
        tape.start(number, values)
        tape.setup(number, node=f"gpu-{1 + number % 2}")
        for place, step in enumerate(PLACES[:upto]):
            tape.time += 5
            tape.evaluate(number, step, 7.0 - (2.0 + number * 5 % 16 / 20) * (place / 7) ** 0.5)
        tape.end(number, verdict)
    tape.finish()
    return tape


def choices(*values: Any) -> str:
    """The distribution of a choice, as Optuna's JSON."""
    return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": values}})


_RATES = {"step": None, "low": 1e-5, "high": 3e-3, "log": True}
DRAWN_FROM = {
    "learning_rate": json.dumps({"name": "FloatDistribution", "attributes": _RATES}),
    "lora_r": choices(4, 8, 16, 32, 64),
    "lora_alpha_mode": choices("fixed", "2r", "rslora"),
    "effective_batch_size": choices(8, 16, 32),
}


def drawn(trials: int, value: Callable[[dict[str, Any]], float], seed: int = 0, name: str = "drawn") -> Tape:
    """Trials with points drawn at random from DRAWN_FROM, whose ledger says so; the better two thirds run to their end,
    the others are stopped at a rung. value: the loss that a point comes to."""
    chance = random.Random(seed)
    tape = Tape(name=name, num_trials=trials)
    ladder = {"evaluate_at": [p / STEPS for p in PLACES], "rungs": [0.11, 0.33], "reduction_factor": 3.0}
    tape.events[0] = replace(tape.events[0], details={**tape.events[0].details, "ladder": ladder})
    tape.prepared()
    points = []
    for _ in range(trials):
        rate = 1e-5 * 300 ** chance.random()
        points.append(params(rate, 2 ** chance.randint(2, 6), chance.choice(("fixed", "2r", "rslora")),
                             chance.choice((8, 16, 32))))  # fmt: skip
    losses = [value(point) for point in points]
    for number, (point, loss) in enumerate(zip(points, losses, strict=True)):
        ends = number == 0 or sorted(losses).index(loss) < trials * 2 // 3
        curve = [loss + 2 * (1 - at / STEPS) for at in PLACES]
        verdict = BUDGET if ends else rung(1, curve[1], min(losses) + 1.7)
        tape.trial(number, point, curve if ends else curve[:2], verdict, DRAWN_FROM)
    tape.finish()
    return tape


def found() -> Tape:
    """Sixteen trials in which the learning rate decides, and the best one lies at the end of its range."""
    return drawn(16, lambda point: 4.0 - 0.4 * math.log10(point["learning_rate"]), name="found")


def recipe_wins() -> Tape:
    tape = Tape(name="b", num_trials=2)
    tape.prepared()
    tape.trial(0, RECIPE_PARAMS, [7.0, 5.0, 4.5, 4.2], BUDGET)
    tape.trial(1, params(1e-5, 8, "fixed", 8), [7.4, 7.1], rung(1, 7.1, 5.0))
    tape.finish()
    return tape


def halted() -> Tape:
    """A fault of the set-up: the first loss that repeats to the last digit ends the search."""
    tape = Tape(name="frozen", num_trials=16)
    tape.prepared()
    tape.trial(0, RECIPE_PARAMS, [7.4], None)
    tape.start(1, params(1e-3, 8, "fixed", 8))
    message = "frozen: validation loss was 7.4 at step 4 and at step 11, the same to the last digit"
    remedy = "check train.target_modules: nothing that the loss depends on is trained"
    tape.end(0, Verdict(Reason.FROZEN, message, remedy))
    tape.end(1, Verdict(Reason.SEARCH, "the search was stopped"))
    tape.finish("halted", reason="frozen", details={"message": message, "remedy": remedy})
    return tape


def interrupted() -> Tape:
    tape = Tape(num_trials=16)
    tape.prepared()
    _trials(tape, 3)
    tape.trial(3, params(3.4e-3, 16, "2r", 32), [6.9, 5.5], None)
    tape.interrupt(3)
    tape.finish("interrupted")
    return tape


def parked() -> Tape:
    """Three trials are parked; one of them goes on and one is stopped by hand, until the driver is interrupted."""
    tape = Tape(num_trials=16)
    tape.prepared()
    _trials(tape, 3)
    for number, losses in ((3, [6.9, 5.5]), (4, [6.7, 5.1]), (5, [7.2, 6.6])):
        tape.trial(number, params(3.4e-3, 16, "2r", 8 * number), losses, None)
        tape.park(number)
    tape.start(4, params(3.4e-3, 16, "2r", 32))
    tape.setup(4, resumed_step=11)
    tape.evaluate(4, 20, 4.7)
    tape.end(5, Verdict(Reason.USER, "stopped by you"))
    tape.interrupt(4)
    tape.finish("interrupted")
    return tape


def lost() -> Tape:
    """A trial whose worker dies, which goes on elsewhere, runs out of memory and then takes a smaller micro-batch."""
    tape = Tape(num_trials=1)
    tape.prepared()
    tape.start(0, RECIPE_PARAMS)
    tape.setup(0)
    tape.evaluate(0, PLACES[0], 7.0)
    tape.retry(0, Reason.INFRASTRUCTURE, message="its worker died (1 of 3)")
    tape.start(0, RECIPE_PARAMS)
    tape.setup(0, resumed_step=PLACES[0])
    fit = {"micro_batch": 4, "gradient_checkpointing": False}
    message = "out of memory, goes on with micro-batch 4"
    tape.retry(0, Reason.OUT_OF_MEMORY, message=message, device="NVIDIA H100", fit=fit)
    tape.trial(0, RECIPE_PARAMS, [6.9, 6.0], BUDGET)
    tape.finish()
    return tape


def many() -> Tape:
    """Forty trials over eight parameters, one of them a list of names."""
    tape = Tape(name="many", num_trials=40, workers=8)
    tape.prepared()
    for n in range(40):
        start = 7.0 + (n * 7 % 11) * 0.05
        values: dict[str, Any] = {
            **params(10 ** (-4 + (n * 13 % 40) / 20), 2 ** (2 + n % 5), ("fixed", "2r", "rslora")[n % 3], 8 << n % 3),
            "lora_dropout": (0.0, 0.05)[n % 2],
            "warmup_ratio": round(0.01 * (n % 10), 2),
            "target_modules": "all-linear" if n % 2 else ["q_proj", "k_proj", "v_proj", "o_proj"],
            "lr_scheduler_type": ("linear", "cosine")[n // 2 % 2],
        }
        end = 4.3 + (n * 17 % 40) / 20
        losses = [start + (end - start) * (i / 7) ** 0.5 for i in range(8)]
        if n % 4:
            upto = 2 if n % 4 < 3 else 4
            tape.trial(n, values, losses[:upto], rung(upto // 2, losses[upto - 1], losses[upto - 1] - 0.2))
        else:
            tape.trial(n, values, losses, BUDGET)
    tape.finish()
    return tape


def unprepared() -> Tape:
    """A fault of the data: no trial was begun."""
    tape = Tape(name="masked", num_trials=16)
    message = "no row of the training set has a label: every token is masked"
    remedy = "set data.completion_only_loss to false, or give rows a completion"
    tape.finish("halted", reason="data", details={"message": message, "remedy": remedy})
    return tape


def hopeless() -> Tape:
    """Every trial ended, none with a loss that counts."""
    tape = Tape(name="hot", num_trials=2)
    tape.prepared()
    tape.trial(0, params(0.5, 8, "fixed", 8), [math.inf], Verdict(Reason.DIVERGED, "diverged (loss inf)"))
    tape.trial(1, params(0.9, 8, "fixed", 8), [None], Verdict(Reason.ERROR, "no eval_loss at 4"))
    tape.finish()
    return tape


def recipe_stopped() -> Tape:
    tape = Tape(name="low", num_trials=2)
    tape.prepared()
    tape.trial(0, RECIPE_PARAMS, [7.0, 6.0], rung(1, 6.0, 5.0))
    tape.trial(1, params(1e-3, 8, "fixed", 8), [6.4, 5.0, 4.5, 4.2, 4.1, 4.05, 4.02, 4.01], BUDGET)
    tape.finish()
    return tape


def one_trial() -> Tape:
    """A run with fixed hyperparameters: nothing is searched."""
    tape = Tape(name="again", num_trials=1, workers=1)
    tape.prepared()
    tape.trial(0, {}, [7.0, 5.6, 5.0, 4.7, 4.5, 4.4, 4.35, 4.312], BUDGET)
    tape.finish()
    return tape


def three_seeds() -> Tape:
    """One point, trained with three seeds: nothing is searched."""
    tape = Tape(name="first-train", num_trials=3)
    tape.prepared()
    for number, last in enumerate((4.312, 4.296, 4.331)):
        tape.trial(number, {}, [7.0, 5.6, 5.0, 4.7, 4.5, 4.4, 4.35, last], BUDGET)
    tape.finish()
    return tape


def resumed() -> Tape:
    """A search that was cut off while trial 3 ran; the next session ran it again."""
    tape = interrupted()
    tape.say(Kind.SEARCH, after=3600, details={"name": "first", "num_trials": 5, "workers": 2})
    tape.prepared()
    tape.trial(3, params(3.4e-3, 16, "2r", 32), [6.9, 5.5, 4.9, 4.6, 4.345, 4.341, 4.34], FLAT)
    tape.trial(4, params(4.1e-2, 16, "2r", 8), [math.nan], Verdict(Reason.DIVERGED, "diverged (loss nan)"))
    tape.finish()
    return tape


def broken() -> Tape:
    """A trial that an unexpected error failed, whose message has newlines and escape codes."""
    tape = Tape(name="broken", num_trials=2)
    tape.prepared()
    tape.trial(0, RECIPE_PARAMS, [7.0, 6.0, 5.0, 4.6, 4.4, 4.3, 4.25, 4.2], BUDGET)
    tape.trial(1, params(1e-3, 8, "rslora", 8), [6.9], None)
    trace = 'Traceback (most recent call last):\n  File "sft.py", line 12, in step\n\traise RuntimeError("\x1b[31mno")'
    tape.end(1, Verdict(Reason.ERROR, "RuntimeError: \x1b[31mno\x1b[0m\n  second row"), traceback=trace)
    tape.finish()
    return tape
