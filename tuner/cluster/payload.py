"""Makes the exact job that is submitted: entry point, environment, metadata, and the parcel as one file."""

from __future__ import annotations

import json
import shlex
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tuner
from tuner.cluster.parcel import EXCLUDES, Parcel
from tuner.config import FLAGS, Experiment
from tuner.contract import InputError
from tuner.results.command_line import READ_AT

STOP_WAIT_S = 60
"""Seconds that a stopped job has to save the search; Ray's default, 3 s, kills the driver while it saves."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the parcel: equal contents then give equal bytes, which Ray uploads once."""


@dataclass(frozen=True)
class Payload:
    """A job for Ray's Jobs API."""

    name: str
    """The search's name; empty for a job that is no search."""
    submission_id: str
    """Ray's id of the job."""
    entrypoint: str
    """The job's command line."""
    metadata: Mapping[str, str]
    """What can be read back of the job: the search's name, its storage path and its program."""
    env_vars: Mapping[str, str] = field(default_factory=lambda: {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)})
    """Environment variables of the job."""

    def read_at(self, address: str) -> Payload:
        """The same job, whose messages name commands for a person who reads them elsewhere. address: of the cluster's
        dashboard, as that person reaches it."""
        return replace(self, env_vars={**self.env_vars, READ_AT: address})

    def request(self, working_dir: str) -> dict[str, Any]:
        """The arguments of `JobSubmissionClient.submit_job`. working_dir: the parcel's zip file, or Ray's URI of it."""
        return {
            "submission_id": self.submission_id,
            "entrypoint": self.entrypoint,
            "runtime_env": {"working_dir": working_dir, "env_vars": dict(self.env_vars)},
            "metadata": dict(self.metadata),
        }


def make_payload(
    experiment: Experiment,
    parcel: Parcel,
    *,
    name: str,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    attempt: int = 1,
) -> Payload:
    """The job that runs `experiment` as the search `name`.

    overrides, flags: as given on this command line. attempt: the number of this job among those of the search, from 1.
    Raises InputError for a relative storage path.
    """
    storage = require_shared(experiment.run.storage_path)
    modules = [own.module for own in experiment.code.values()]
    words = search_words(parcel, name=name, storage_path=storage, overrides=overrides, flags=flags, modules=modules)
    return _payload(name, storage, [*words, "--address", "auto", "--events-beside-log"], attempt, experiment.program)


def make_resume(
    name: str,
    storage_path: str,
    program: str,
    flags: Mapping[str, Any],
    attempt: int,
    modules: Sequence[str] = (),
    accept_changes: bool = False,
) -> Payload:
    """The job that resumes the search `name`; the arguments as in `make_payload`. modules: code of the user's own that
    may run. Raises InputError for a relative storage path."""
    storage = require_shared(storage_path)
    words = ["--resume", name, "--storage-path", storage, *flag_words(flags), *module_words(modules)]
    words += ["--accept-changes"] if accept_changes else []
    return _payload(name, storage, [*words, "--address", "auto", "--events-beside-log"], attempt, program)


def make_errand(command: str, arguments: Sequence[str], mark: str, *, module: str = "tuner") -> Payload:
    """A short job that runs a command of tuner's on the cluster and prints JSON. mark: makes its id unique. module: the
    one that is run."""
    entrypoint = shlex.join(["python", "-m", module, *arguments])
    return Payload("", f"tuner-{command}-{mark}", entrypoint, {"job_name": f"tuner {command}"})


def search_words(
    parcel: Parcel,
    *,
    name: str,
    storage_path: str,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    modules: Sequence[str] = (),
) -> list[str]:
    """The arguments of `tuner search`, in the parcel's folder, for the search that this command line asks for."""
    moved = dict(parcel.settings)
    words = [str(parcel.file)] if parcel.file else []
    for text in overrides:
        key = text.partition("=")[0].strip()
        words += ["--set", f"{key}={moved.pop(key)}" if key in moved else text]
    given = {key: moved.pop(key, value) for key, value in (flags or {}).items()}
    words += flag_words({key: value for key, value in given.items() if key not in ("run.name", "run.storage_path")})
    for key, place in moved.items():  # the search file names these by a path outside its own folder
        words += ["--set", f"{key}={place}"]
    return [*words, *module_words(modules), "--name", name, "--storage-path", storage_path]


def module_words(modules: Sequence[str]) -> list[str]:
    """The arguments that permit the user's own modules; on the cluster they do not lie beside the search file."""
    return [word for module in dict.fromkeys(modules) for word in ("--allow-module", module)]


def require_shared(storage_path: str) -> str:
    """The storage path, if it means the same on every node. Raises InputError for a relative one."""
    if storage_path.startswith("/") or "://" in storage_path:
        return storage_path
    raise InputError(
        f"{storage_path!r} is a relative path, and would lie in the job's temporary folder on the cluster",
        where="run.storage_path",
        expected="an absolute path that every node sees, or a URI (s3://bucket/runs)",
        remedy="--storage-path /shared/runs",
    )


def write_zip(parcel: Parcel, to: Path) -> None:
    """Writes the parcel as one zip file: the same bytes for the same contents."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, source in sorted(parcel.files()):
            entry = zipfile.ZipInfo(str(place), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, source.read_bytes())


def working_dir(parcel: Parcel) -> str:
    """The URI under which Ray will keep the parcel; it depends on the contents only."""
    from ray._private.runtime_env.packaging import get_uri_for_package

    with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
        file = Path(folder, "parcel.zip")
        write_zip(parcel, file)
        return str(get_uri_for_package(file))


def contents(parcel: Parcel) -> dict[str, Any]:
    """What is sent, for people: bytes by place, and the patterns of names that are not sent."""
    sizes = parcel.sizes()
    return {"bytes": sum(sizes.values()), "places": sizes, "excludes": list(EXCLUDES)}


def _payload(name: str, storage: str, words: Sequence[str], attempt: int, program: str) -> Payload:
    return Payload(
        name=name,
        submission_id=submission_id(name, attempt),
        entrypoint=shlex.join(["python", "-m", "tuner", "search", *words]),
        metadata=job_metadata(name, storage, program),
    )


def submission_id(name: str, attempt: int) -> str:
    """Ray's id of a job of the search `name`. attempt: its number among them, from 1."""
    return name if attempt == 1 else f"{name}.{attempt}"


def job_metadata(name: str, storage_path: str, program: str) -> dict[str, str]:
    """What a Ray job says of its search, for `status --address` and `submit --resume`."""
    return {
        "job_name": name,  # what the dashboard's Jobs page shows
        "tuner_search": name,
        "tuner_version": tuner.__version__,
        "storage_path": storage_path,
        "program": program,
    }


def flag_words(flags: Mapping[str, Any]) -> list[str]:
    """The flags and their values as arguments."""
    names = {key: flag for flag, key in FLAGS.items()}
    words: list[str] = []
    for key, value in flags.items():
        if isinstance(value, Mapping):  # json, because it is read as YAML
            words += [word for name, amount in value.items() for word in (names[key], f"{name}={json.dumps(amount)}")]
            continue
        words += [names[key]] if value is True else [names[key], str(value)]
    return words
