"""Lists the callables of the standard library by name, from its source, without importing it."""

from __future__ import annotations

import builtins
import re
import sys
import sysconfig
from pathlib import Path

_DEFINED = re.compile(r"^(?:async +def|def|class) +([A-Za-z]\w*)", re.MULTILINE)
_EXPORTED = re.compile(r"^from +_?[a-z.]+ +import +([A-Za-z][\w, ]*)$", re.MULTILINE)
_COMPILED = {
    "os": ("abort", "_exit", "fork", "system", "kill", "unlink", "execv", "remove", "rmdir"),
    "sys": ("exit", "setrecursionlimit", "breakpointhook"),
    "posix": ("abort", "system", "fork"),
    "signal": ("pause", "raise_signal", "alarm"),
    "faulthandler": ("_sigsegv", "_sigabrt", "dump_traceback_later"),
    "gc": ("collect", "freeze"),
    "time": ("sleep",),
    "_thread": ("interrupt_main", "exit"),
    "marshal": ("loads",),
}
"""Callables of C modules, which no Python source shows: those that could do harm."""


def callables() -> list[str]:
    """`module:callable` for every top-level function and class of a module, for builtins, and for some of C modules."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = {f"builtins:{name}" for name in dir(builtins) if callable(getattr(builtins, name))}
    names |= {f"{module}:{name}" for module, found in _COMPILED.items() for name in found}
    for top in sorted(sys.stdlib_module_names):
        files = [root / f"{top}.py", *(root / top).rglob("*.py")]
        for file in files:
            if not file.is_file() or "site-packages" in file.parts:
                continue
            parts = list(file.relative_to(root).with_suffix("").parts)
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not all(part.isidentifier() for part in module.split(".")):
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            exported = (word.strip() for line in _EXPORTED.findall(text) for word in line.split(","))
            names |= {f"{module}:{name}" for name in (*_DEFINED.findall(text), *exported) if name.isidentifier()}
    return sorted(names)
