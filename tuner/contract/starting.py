"""How a process of Python is started beside this one."""

from __future__ import annotations

import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as `python -m` does, in a process that looks for modules where this one does and
    in the same order: `python -m` itself puts the current folder first, where a user's `json.py` may lie."""
    run = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-P", "-c", f"import runpy, sys; sys.path[:] = {sys.path!r}; {run}", *arguments]
