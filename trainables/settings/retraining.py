"""One point trained again: at another length, or on from its adapter."""

from __future__ import annotations

from trainables.settings.root import Settings
from trainables.settings.train import CHANGES_BASE, TrainSettings
from tuner.contract import InputError, Retraining


def retraining(settings: Settings, epochs: float | None, adapter: str | None) -> Retraining:
    """The settings that become others, and what the user should know of them. epochs: passes over the rows; None: the
    length stays. adapter: a folder; None: training begins with a new adapter.

    Raises InputError for a length that is none, and an adapter that cannot be gone on from.
    """
    train, changes = settings.train, dict[str, object]()
    notes = []
    if epochs is not None:
        if not 0 < epochs < 10_000:
            raise InputError(f"{epochs:g} is no number of passes over the rows", where="--epochs",
                             expected="a number above 0, such as 3 or 0.5")  # fmt: skip
        changes |= {"train.max_steps": None, "train.num_train_epochs": float(epochs)}
        notes.append(f"{_passes(epochs)} in place of {_length(train)}; {_kept(train)}")
    elif train.max_steps is not None:
        notes.append(f"the length stays {_length(train)}, whatever the rows; --epochs gives it in passes over them")
    if adapter is not None:
        if train.init_lora_weights in CHANGES_BASE:
            raise InputError(
                f"an adapter made with init_lora_weights {train.init_lora_weights} belongs to the base that it changed",
                where="--from-adapter", expected="an adapter whose base is as it was loaded",
                remedy="train without --from-adapter",
            )  # fmt: skip
        changes["train.init_adapter"] = adapter
        notes.append(f"training goes on from {adapter} with a new optimizer, and the schedule begins anew")
    return Retraining(changes, tuple(notes))


def _length(train: TrainSettings) -> str:
    return f"{train.max_steps} steps" if train.max_steps is not None else _passes(train.num_train_epochs or 0)


def _passes(epochs: float) -> str:
    return f"{epochs:g} {'pass' if epochs == 1 else 'passes'} over the rows"


def _kept(train: TrainSettings) -> str:
    """What stays, and what scales with the length."""
    shape = train.lr_scheduler_type
    constant = shape.startswith("constant")
    rate = f"the learning rate {train.learning_rate:g} stays the " + (
        "rate to the end" if constant else f"peak and falls ({shape}) over the new length")  # fmt: skip
    scale = [f"the warm-up ({train.warmup_ratio:.0%} of it)"] if train.warmup_ratio and shape != "constant" else []
    if train.eval_steps < 1:
        scale.append(f"the validations (every {train.eval_steps:.0%} of it)")
    told = f"; {' and '.join(scale)} scale with it" if scale else ""
    steps = f"; a validation every {train.eval_steps:g} steps stays" if train.eval_steps >= 1 else ""
    return rate + told + steps
