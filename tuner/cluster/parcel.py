"""Collects what is sent to a cluster: tuner's own packages, the search file, and the files and modules that it names.

A relative path in the search file or in a flag is a file of this machine, and is sent. An absolute path is the
cluster's: it is neither checked here nor sent.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import shutil
import site
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tuner.config import Experiment
from tuner.config.paths import Several, absolute, folder_of
from tuner.contract import InputError
from tuner.importing import Own

PACKAGES = ("tuner", "trainables", "search_spaces")
"""tuner's own packages."""
EXCLUDES = ("__pycache__", "*.pyc", ".*", "*.egg-info")
"""Patterns of names that are never sent, at any depth of a folder. `.*`: version control, environments, caches."""

LARGEST_BYTES = 200 * 2**20
"""The most that is sent. Ray keeps a job's files in the head's memory, and refuses 500 MiB."""

SEARCH = "search"
"""Folder of the search file in the parcel. Files that it names in its own folder, or below, keep their place in it."""
FILES = "files"
"""Folder in the parcel of every other file that a setting names."""


@dataclass(frozen=True)
class Parcel:
    """The files that are sent with a job. A place is a path relative to the job's working folder."""

    places: Mapping[PurePosixPath, Path]
    """Each file or folder that is sent, by its place."""
    settings: Mapping[str, str]
    """The settings whose path differs on the cluster, by dotted name, and their place there."""
    file: PurePosixPath | None = None
    """The search file's place; None without one."""

    def files(self) -> Iterator[tuple[PurePosixPath, Path]]:
        """Every file that is sent: its place, and its path here, in the order of the places."""
        for place, source in sorted(self.places.items()):
            if source.is_file():
                yield place, source
                continue
            for folder, names, files in os.walk(source):
                names[:] = sorted(name for name in names if not is_excluded(name))
                inner = place / PurePosixPath(Path(folder).relative_to(source).as_posix())
                yield from ((inner / name, Path(folder, name)) for name in sorted(files) if not is_excluded(name))

    def sizes(self) -> dict[str, int]:
        """Bytes of each entry of `places`."""
        found = {str(place): 0 for place in sorted(self.places)}
        for place, source in self.files():
            top = next(str(p) for p in (place, *place.parents) if p in self.places)
            found[top] += source.stat().st_size
        return found

    def write(self, to: Path) -> None:
        """Copies everything below the folder `to`."""
        for place, source in self.files():
            target = to / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def is_excluded(name: str) -> bool:
    """Whether a file or folder of this name is never sent."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDES)


def pack(experiment: Experiment, include: Sequence[Path] = (), packages: Sequence[str] = PACKAGES) -> Parcel:
    """What the experiment needs on a cluster.

    include: further files and folders, for the job's working folder. packages: of tuner's own; empty if the cluster has
    them. Raises InputError if all of it is larger than LARGEST_BYTES.
    """
    code = pack_code(experiment.code.values(), include, packages)
    places: dict[PurePosixPath, Path] = {}
    written, demo = experiment.path and absolute(experiment.path), package_folder("tuner") / "demo"
    home, file = written.parent if written else None, None
    if written is not None and home != demo:
        file = PurePosixPath(SEARCH, written.name)
        places[file] = written
    settings: dict[str, str] = {}
    for name, path in experiment.files.items():
        if isinstance(path, Several):
            own = home if name not in experiment.changes else None
            found, value = _pack_several(name, path, own)
            places |= found
            settings |= {name: value} if value is not None else {}
            continue
        if home == demo and _is_below(path, demo):
            continue  # the embedded example's own base and rows are in the package
        if home is not None and name not in experiment.changes and _is_below(path, home):
            places[PurePosixPath(SEARCH, path.relative_to(home).as_posix())] = path
            continue
        place = PurePosixPath(FILES, name, path.name)
        places[place] = path
        settings[name] = str(place)
    places |= _beside(experiment, places)
    parcel = Parcel({**code.places, **places}, settings, file)
    _require_small(parcel)
    return parcel


def _beside(experiment: Experiment, places: Mapping[PurePosixPath, Path]) -> dict[PurePosixPath, Path]:
    """The places of what files that are sent name in turn. Raises InputError."""
    sent = {source: place for place, source in places.items()}
    named: dict[str, list[Path]] = {}
    for name, given in experiment.files.items():
        files = [file for _, found in given.entries for file in found] if isinstance(given, Several) else [given]
        named[name] = [file for file in files if file in sent]
    found = experiment.program_class.files_beside(experiment.settings, named)
    return {
        PurePosixPath(os.path.normpath(sent[file].parent / path)): file.parent / path
        for file, paths in found.items()
        for path in paths
    }


def _pack_several(
    name: str, several: Several, home: Path | None
) -> tuple[dict[PurePosixPath, Path], str | None]:  # fmt: skip
    """The places of the files of a pattern or a list, and the value of the setting there; None where it stays as it is.

    home: the folder of the search file that has the setting; None where a flag has it.
    """
    files = [file for _, found in several.entries for file in found]
    if home is not None and all(file.is_relative_to(home) for file in files):
        return {PurePosixPath(SEARCH, file.relative_to(home).as_posix()): file for file in files}, None
    places: dict[PurePosixPath, Path] = {}
    names = []
    for index, (text, found) in enumerate(several.entries):
        place, folder = PurePosixPath(FILES, name, str(index)), folder_of(text)
        places |= {place / file.relative_to(folder).as_posix(): file for file in found}
        names.append(str(place / Path(text).relative_to(folder).as_posix()) if found else text)
    return places, json.dumps(names) if several.is_list else names[0]


def pack_code(code: Iterable[Own] = (), include: Sequence[Path] = (), packages: Sequence[str] = PACKAGES) -> Parcel:
    """tuner's packages, the modules of the user's own code, and `include`. Raises InputError as `pack` does."""
    places = {PurePosixPath(name): package_folder(name) for name in packages}
    for own in code:
        if found := _own_module(own):
            places[found[0]] = found[1]
    for path in include:
        if not path.exists():
            raise InputError("no such file or folder", where=f"--include {path}", expected="something to send along")
        places[PurePosixPath(path.resolve().name)] = path.resolve()
    parcel = Parcel(places, {})
    _require_small(parcel)
    return parcel


def package_folder(name: str) -> Path:
    """The folder that a package would be imported from; it is not imported. Raises InputError if there is none."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {name!r} is not installed here", expected="tuner, whole", remedy="install tuner")
    return Path(next(iter(spec.submodule_search_locations)))


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _own_module(own: Own) -> tuple[PurePosixPath, Path] | None:
    """What to send for a module of the user's: its outermost regular package, or its file, with its place. Nothing is
    imported. None for an installed module: the cluster's environment must have it as well."""
    parts = own.module.split(".")
    if parts[0] in PACKAGES or any(_is_below(own.file, Path(folder)) for folder in _installed()):
        return None
    for depth in range(1, len(parts) + 1):
        package = own.folder.joinpath(*parts[:depth])
        if (package / "__init__.py").is_file():  # a folder without it is a namespace, not a package
            return PurePosixPath(*parts[:depth]), package
    return PurePosixPath(*parts[:-1], own.file.name), own.file


def _installed() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["stdlib"]]


def _require_small(parcel: Parcel) -> None:
    sizes = parcel.sizes()
    if sum(sizes.values()) > LARGEST_BYTES:
        largest = max(sizes, key=lambda place: sizes[place])
        raise InputError(
            f"{sum(sizes.values()) / 2**20:,.0f} MiB would travel with the job",
            where=str(parcel.places[PurePosixPath(largest)]),
            expected=f"at most {LARGEST_BYTES / 2**20:.0f} MiB",
            remedy="put it where every node sees it, and name it by its absolute path there, or by its hub id",
        )
