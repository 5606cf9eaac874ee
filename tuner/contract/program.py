"""What a program is: the class that prepares data, trains and measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tuner.contract.base_look import BaseLook
from tuner.contract.card import Card
from tuner.contract.engine import PackedEngine
from tuner.contract.errors import InputError
from tuner.contract.facts import ALONE, Assignment, Budget, Evaluation, Group, Preparation, Setup, TrialSize
from tuner.contract.look import Look, LookRequest
from tuner.contract.objective import EVAL_LOSS, Objective
from tuner.contract.retraining import Retraining
from tuner.contract.scoring import Scored, ScoreRequest
from tuner.contract.serving import Served
from tuner.contract.telling import Tell, silent


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter that a program lets a search vary."""

    name: str
    """Its short name ("learning_rate")."""
    path: str
    """Where its value stands in the settings ("train.learning_rate")."""
    kind: str
    """"float", "int" or "choice"."""
    low: float | None = None
    """The smallest value that makes sense; None where there is no bound."""
    high: float | None = None
    """The largest value that makes sense; None where there is no bound."""
    choices: tuple[Any, ...] | None = None
    """Of a choice, every value that is allowed; None: the settings decide."""
    label: str = ""
    """A short column heading for tables; the name where it is empty."""
    warmup: bool = False
    """True for the parameter that is the warm-up's share of a trial: the default grace period is twice it or more."""
    heavy: bool = False
    """True where a trial takes more memory the larger the value is, or the later it is among `choices`."""


class Program(ABC):
    """Trains and measures trials. One instance lives in a worker and runs one trial after another.

    Required are `Settings`, `PARAMETERS`, `REFUSED`, `budget`, `prepare`, a constructor, `start`, `step` and `stop`.
    All else is optional: the default says that the program does not do it. Class methods get the settings as an
    instance of `Settings` and answer without heavy imports (torch and the like), because `plan` asks them. Those marked
    "in a process of its own", `pack` and the constructor get the same as JSON, and may import anything.
    """

    Settings: ClassVar[Any]
    """A pydantic model; its fields are the program's sections of the experiment file. A field that holds a path is
    marked with `json_schema_extra={"format": "path"}`."""
    PARAMETERS: ClassVar[Mapping[str, Parameter]]
    """What a space may vary, by name."""
    REFUSED: ClassVar[Mapping[str, str]]
    """What a space may not vary, by name, each with the reason shown to the user."""
    OBJECTIVES: ClassVar[tuple[Objective, ...]] = (EVAL_LOSS,)
    """The numbers of every evaluation that a search goes by. Trials are judged and ranked by the first one."""

    # --- the settings ---

    @classmethod
    def objectives(cls, settings: Any) -> tuple[Objective, ...]:
        """The objectives of a search with these settings, the one that it makes better first. Those that are not
        measured at every evaluation say so (`Objective.measured`)."""
        return cls.OBJECTIVES

    @classmethod
    @abstractmethod
    def budget(cls, settings: Any) -> Budget:
        """How long a trial is that is not stopped early."""

    @classmethod
    def eval_every(cls, settings: Any) -> float:
        """Optimizer steps between two evaluations; a value below 1 is a share of a trial. The same for every trial."""
        return 0.1

    @classmethod
    def notes(cls, settings: Any, varied: Collection[str]) -> tuple[str, ...]:
        """What a person should know of these settings before anything runs, a sentence each. varied: names of the
        parameters that the space searches. Raises InputError for settings that cannot work."""
        return ()

    @classmethod
    def describe_base(cls, settings: Any) -> str:
        """In a sentence, what the trials start from: the kind and the size of a model; "" where that cannot be told
        without reading much."""
        return ""

    @classmethod
    def files_beside(cls, settings: Any, files: Mapping[str, Collection[Path]]) -> Mapping[Path, Collection[str]]:
        """By file: what else it names, as paths relative to its folder. `submit` sends that along, in the same place
        beside it. files: those of this machine that settings name and that are sent, by dotted name of the setting.
        Raises InputError for what is missing, or cannot be sent."""
        return {}

    @classmethod
    def look_at_base(cls, settings: Mapping[str, Any]) -> BaseLook:
        """What the trials start from, what of it can be trained, and what that takes. In a process of its own. Reads no
        weights. Raises InputError."""
        raise InputError(f"the program {_named(cls)} shows no base", where="run.program",
                         expected="a program with a method `look_at_base`, such as sft")  # fmt: skip

    @classmethod
    def with_params(cls, settings: Any, params: Mapping[str, Any]) -> Any:
        """The settings with a trial's parameters in place, validated. Overridden where a parameter replaces a setting
        of another name, as `max_steps` replaces `num_train_epochs`.

        Raises pydantic's ValidationError, or InputError, where they do not go together.
        """
        return type(settings).model_validate(laid(settings, params, cls.PARAMETERS))

    @classmethod
    def retraining(cls, settings: Any, epochs: float | None = None, adapter: str | None = None) -> Retraining:
        """How `tuner train` trains these settings. epochs: the length, in passes over the rows; None: as they say.
        adapter: the folder of an adapter to begin from; None: a new one. Raises InputError for what the program cannot
        do."""
        asked = "--epochs" if epochs is not None else "--from-adapter" if adapter is not None else ""
        if asked:
            raise InputError(f"the program {_named(cls)} does not say how", where=asked,
                             expected="a program with a method `retraining`, such as sft",
                             remedy="give its own settings with --set")  # fmt: skip
        return Retraining()

    @classmethod
    def unpinned(cls, settings: Any) -> bool:
        """Whether the settings name something that may change while a search runs: a branch on a hub."""
        return False

    @classmethod
    def pin(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        """Resolves each such name to what it stands for now (a commit), by dotted name of the setting. Called in a
        process of its own, and only where `unpinned`. Raises InputError for what the hub does not have or does not
        give."""
        return {}

    @classmethod
    def look(cls, settings: Any, request: LookRequest) -> Look | None:
        """The rows of these settings as the model sees them, for `tuner data` and `plan`. Without torch. None where the
        program has none to show, or, with `request.only_here`, where a file is not on this machine. Raises InputError
        for rows that cannot be looked at."""
        return None

    @classmethod
    def trial_size(cls, settings: Any, params: Mapping[str, Any], rows: int, tokens: float) -> TrialSize | None:
        """How long a whole trial with these parameters is, by which `plan` foresees what a search takes; None where
        that cannot be told. rows, tokens: of the training set."""
        return None

    # --- what all trials share ---

    @classmethod
    @abstractmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        """Reads, checks and tokenizes the data once a search, in a process of its own. Idempotent, safe to race. If it
        has a parameter `tell`, it gets a function that shows how far it is (see `Tell`).

        Its facts name what trials are made of besides the program's own code, and a resume refuses a change of that:
        `"made_of": {"base": {"source": path, "files": {name: fingerprint}}}`.
        Raises InputError for what the user wrote, and Fault for data that cannot work.
        """

    @classmethod
    def check_values(
        cls, settings: Any, values: Mapping[str, Sequence[Any]], preparation: Preparation
    ) -> tuple[str, ...]:
        """Checks what a space may draw against what was prepared, before the first trial. values: by name of each
        parameter that is a choice, all its values. Gives sentences for the user.

        Raises InputError for a value with which no trial can train, the recipe's own included.
        """
        return ()

    @classmethod  # noqa: B027  by default there is nothing to import
    def warm(cls) -> None:
        """Imports what a trial needs, in an engine's process, while the data is still being prepared."""

    @classmethod
    def memory(
        cls, settings: Any, params: Mapping[str, Any], slots: int, group: Group = ALONE
    ) -> Mapping[str, int | None] | str | None:
        """Estimates the peak GPU memory of a trial with these parameters, or of `slots` of them packed: bytes by what
        they are for, None for what is not known, and the `total` of the others. Where that cannot be told: why, in
        words, or None to say nothing. group: the processes that train the trial; it is passed only where there are
        several."""
        return None

    # --- trials on one GPU, trials on several ---

    @classmethod
    def packs(cls, settings: Any, params: Mapping[str, Any]) -> str | None:
        """Why a trial with these parameters cannot be packed with others; None where it can."""
        return f"the program {_named(cls)} packs none"

    @classmethod
    def pack(
        cls, settings: Mapping[str, Any], preparation: Preparation, slots: int, *, beside: bool = False
    ) -> PackedEngine:
        """An engine for `slots` packed trials, in the worker that owns the GPU. beside: an unpacked trial may train on
        the same GPU. Raises Unpackable where trials cannot share the base."""
        raise NotImplementedError(f"{_named(cls)} has `packs` and no `pack`")

    @classmethod
    def spreads(cls, settings: Any, params: Mapping[str, Any], group: Group) -> str | None:
        """Why a trial with these parameters cannot be trained by several processes; None where it can. Every process
        gets the same calls. A size that does not divide the batch is a reason."""
        return f"the program {_named(cls)} trains a trial in one process"

    @classmethod
    def unlike(cls, first: Mapping[str, Any], own: Mapping[str, Any]) -> str:
        """A note for the user where two trials' set-ups differ in something that changes the loss, such as the
        precision on another kind of device; "" where they do not. first, own: the fields and details of each `Setup`
        in one mapping."""
        return ""

    # --- what becomes of an adapter ---

    @classmethod
    def card(cls, settings: Any, setup: Mapping[str, Any]) -> Card:
        """What the model card says beside the search's numbers. setup: the winner's, as in `unlike`."""
        trained = setup.get("trainable_parameters")
        return Card(facts=(f"trainable parameters: {trained}",) if trained is not None else ())

    @classmethod
    def made_of(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fingerprints of the base that an adapter is merged into, in the form of `made_of` in the facts of
        `prepare`. A merge into a base with other fingerprints is refused. In a process of its own."""
        return {}

    @classmethod
    def foreign_code(cls, settings: Mapping[str, Any]) -> str:
        """The code of others that a merge with these settings would run, in words ("code that comes with the base
        'org/name'"); "" where it would run none. A merge that would run some asks for `--trust-remote-code`. In a
        process of its own, with settings that anybody may have written."""
        return ""

    @classmethod
    def merge(cls, settings: Mapping[str, Any], adapter_folder: str, to: str) -> None:
        """Merges an adapter into its base and saves a model into the folder `to`. In a process of its own."""
        raise InputError(
            f"the program {_named(cls)} merges no adapters",
            where="--merge",
            expected="a program with `merge`",
            remedy="export without --merge",
        )

    @classmethod
    def serve(
        cls,
        settings: Mapping[str, Any],
        adapter_folder: str,
        to: str,
        server: str,
        name: str,
        merge: bool,
        compare: bool,
    ) -> Served:
        """Writes into the folder `to` what `server` needs to serve an adapter under the name `name`; with merge, a
        model with the adapter merged into it. In a process of its own.

        compare: whether to compare what was written with the trained model. Raises InputError where the server cannot
        load it, or where it computes something else than was trained.
        """
        raise InputError(
            f"the program {_named(cls)} writes for no server",
            where="--for",
            expected="a program with `serve`",
            remedy="export without --for",
        )

    @classmethod
    def score(cls, settings: Mapping[str, Any] | None, request: ScoreRequest, tell: Tell = silent) -> Scored:
        """Scores adapters side by side on rows that no trial learned from: losses, answers, metrics of answers. In a
        process of its own. settings: the search's; None: `request.source` says what the model is. tell: see `Tell`.

        Raises InputError for rows of another format, and for an adapter of another base.
        """
        raise InputError(f"the program {_named(cls)} scores no adapters", where="run.program",
                         expected="a program with `score`, such as sft")  # fmt: skip

    # --- a trial ---

    if TYPE_CHECKING:  # at run time it is object's: a class without this base may call super().__init__()

        def __init__(self, settings: Mapping[str, Any], preparation: Preparation, group: Group = ALONE) -> None:
            """Loads what trials share. group: the processes that train together, of which this is one; torch's process
            group stands by then. It is passed only where there are several."""

    @abstractmethod
    def start(self, assignment: Assignment) -> Setup:
        """Sets a trial up, and trains nothing yet. Raises Fault where it cannot be trained."""

    @abstractmethod
    def step(self) -> Evaluation:
        """Trains to the next of `assignment.evaluation_steps(...)` and measures. Raises Fault for the worker's own
        safety alone: whether a loss is good enough is the driver's to judge."""

    @abstractmethod
    def stop(self) -> None:
        """Ends the trial at whatever step it is, and removes everything that `start` added. Called once per `start`."""


class Runner(Protocol):
    """What runs one trial after another: a program, or an object that passes the calls on to one in another process."""

    def start(self, assignment: Assignment) -> Setup: ...

    def step(self) -> Evaluation: ...

    def stop(self) -> None: ...


def laid(settings: Any, params: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The settings as data, each of a trial's params at the path of its parameter. Not validated."""
    # Only what the user set: a default spelled out could contradict a param that replaces it.
    data: dict[str, Any] = settings.model_dump(exclude_unset=True)
    for name, value in params.items():
        target = data
        *parents, last = parameters[name].path.split(".")
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = list(value) if isinstance(value, tuple) else value
    return data


def _named(program: type[Program]) -> str:
    """The program's name as `run.program` takes it."""
    return f"{program.__module__}:{program.__qualname__}"
