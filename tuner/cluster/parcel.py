"""What travels to a cluster: tuner's own packages, the search file, and the files and modules that it names.

A relative path in the search file or in a flag is a file of this machine, and travels. An absolute path is the
cluster's: it is neither looked at here nor sent.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import shutil
import site
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tuner.config import Experiment
from tuner.config.paths import absolute
from tuner.contract import InputError
from tuner.importing import Own

PACKAGES = ("tuner", "trainables", "search_spaces")
EXCLUDES = ("__pycache__", "*.pyc", ".*", "*.egg-info")
"""Names that never travel, at any depth of a folder. `.*`: version control, environments, caches."""

LARGEST_BYTES = 200 * 2**20
"""Ray keeps a job's files in the head's memory and refuses 500 MiB; long before that it is no place for data."""

SEARCH = "search"
"""Folder of the search file in the parcel; what lies beside or below it here lies there as well."""
FILES = "files"
"""Folder of everything else that was named by a path."""


@dataclass(frozen=True)
class Parcel:
    """places: where each file or folder goes, relative to the job's working folder, and where it is here. settings:
    dotted names of settings whose path is another there."""

    places: Mapping[PurePosixPath, Path]
    settings: Mapping[str, str]
    file: PurePosixPath | None = None
    """The search file's place."""

    def files(self) -> Iterator[tuple[PurePosixPath, Path]]:
        """Every file that travels, in the order of their places."""
        for place, source in sorted(self.places.items()):
            if source.is_file():
                yield place, source
                continue
            for folder, names, files in os.walk(source):
                names[:] = sorted(name for name in names if not is_excluded(name))
                inner = place / PurePosixPath(Path(folder).relative_to(source).as_posix())
                yield from ((inner / name, Path(folder, name)) for name in sorted(files) if not is_excluded(name))

    def sizes(self) -> dict[str, int]:
        """Bytes by place, the three packages as one each."""
        found = {str(place): 0 for place in sorted(self.places)}
        for place, source in self.files():
            top = next(str(p) for p in self.places if place == p or p in place.parents)
            found[top] += source.stat().st_size
        return found

    def write(self, to: Path) -> None:
        """Copies everything below the folder `to`."""
        for place, source in self.files():
            target = to / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def is_excluded(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDES)


def pack(experiment: Experiment, include: Sequence[Path] = (), packages: Sequence[str] = PACKAGES) -> Parcel:
    """What the experiment needs on a cluster. include: further files and folders, to lie in the working folder.
    packages: none where they are there already. Raises InputError where it is too much."""
    code = pack_code(experiment.code.values(), include, packages)
    places: dict[PurePosixPath, Path] = {}
    written, demo = experiment.path and absolute(experiment.path), package_folder("tuner") / "demo"
    home, file = written.parent if written else None, None
    if written is not None and home != demo:
        file = PurePosixPath(SEARCH, written.name)
        places[file] = written
    settings: dict[str, str] = {}
    for name, path in experiment.files.items():
        if home == demo and _is_below(path, demo):
            continue  # the embedded example's own base and rows are in the package
        if home is not None and name not in experiment.changes and _is_below(path, home):
            places[PurePosixPath(SEARCH, path.relative_to(home).as_posix())] = path
            continue
        place = PurePosixPath(FILES, name, path.name)
        places[place] = path
        settings[name] = str(place)
    parcel = Parcel({**code.places, **places}, settings, file)
    _require_fit(parcel)
    return parcel


def pack_code(code: Iterable[Own] = (), include: Sequence[Path] = (), packages: Sequence[str] = PACKAGES) -> Parcel:
    """tuner's packages, the modules of the user's own code, and what is to be included."""
    places = {PurePosixPath(name): package_folder(name) for name in packages}
    for own in code:
        if found := _own_module(own):
            places[found[0]] = found[1]
    for path in include:
        if not path.exists():
            raise InputError("no such file or folder", where=f"--include {path}", expected="something to send along")
        places[PurePosixPath(path.resolve().name)] = path.resolve()
    parcel = Parcel(places, {})
    _require_fit(parcel)
    return parcel


def package_folder(name: str) -> Path:
    """Where a package is imported from, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {name!r} is not installed here", expected="tuner, whole", remedy="install tuner")
    return Path(next(iter(spec.submodule_search_locations)))


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _own_module(own: Own) -> tuple[PurePosixPath, Path] | None:
    """A module of the user's: its outermost regular package, or its file, and where it has to lie. None where it is
    installed: an environment has it, and the cluster's has to. Nothing is imported."""
    parts = own.module.split(".")
    if parts[0] in PACKAGES or any(_is_below(own.file, Path(folder)) for folder in _installed()):
        return None
    for depth in range(1, len(parts) + 1):
        package = own.folder.joinpath(*parts[:depth])
        if (package / "__init__.py").is_file():  # a folder without it holds packages and is none
            return PurePosixPath(*parts[:depth]), package
    return PurePosixPath(*parts[:-1], own.file.name), own.file


def _installed() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["stdlib"]]


def _require_fit(parcel: Parcel) -> None:
    sizes = parcel.sizes()
    if sum(sizes.values()) > LARGEST_BYTES:
        largest = max(sizes, key=lambda place: sizes[place])
        raise InputError(
            f"{sum(sizes.values()) / 2**20:,.0f} MiB would travel with the job",
            where=str(parcel.places[PurePosixPath(largest)]),
            expected=f"at most {LARGEST_BYTES / 2**20:.0f} MiB",
            remedy="put it where every node sees it, and name it by its absolute path there, or by its hub id",
        )
