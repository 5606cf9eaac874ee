"""Turns every failure of a command into a message for the user and an exit code."""

from __future__ import annotations

import os
import sys

import click

from tuner.contract import Fault, InputError
from tuner.streams import OutputError

USAGE = 2
FAILED = 1
"""A program could not do what it was asked for, and said why."""
INTERNAL = 70
"""A fault of the tuner itself (EX_SOFTWARE of sysexits.h). Not 1: that says that a search ran and found nothing."""
INTERRUPTED = 130
CLOSED_PIPE = 141
"""128 + SIGPIPE: what a shell reports of a program whose output has lost its reader (`| head`)."""


class BrokenPipeBeneathError(Exception):
    """Stands for a BrokenPipeError that does not come from our output: click would end that with exit code 1."""


class InterruptError(Exception):
    """Stands for a KeyboardInterrupt: click would print a line and drop the signal's number."""


def exit_code_of(error: BaseException) -> int:
    """Writes the error to standard error and returns its exit code."""
    if (own := _of_users_code(error)) is not None:
        error = own
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, OutputError):
        if error.reader_gone:
            return CLOSED_PIPE
        _say(f"error: {error}")
        return USAGE
    if isinstance(error, BrokenPipeBeneathError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, InputError):
        _say(f"error: {error}")
        return USAGE
    if isinstance(error, Fault):  # from a program in a process of its own, as in `export --merge`
        _say(f"error: {error.message}" + (f"\n  try: {error.remedy}" if error.remedy else ""))
        return FAILED
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, InterruptError):
        return _interrupted(error.__cause__)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _interrupted(error)
    from tuner.disks import is_full

    if isinstance(error, OSError) and is_full(error):
        again = "a search that had begun goes on with: python -m tuner search --resume NAME"
        _say(f"error: no room on the disk ({error})\n  try: make room; {again}")
        return USAGE
    return _internal(error)


def _interrupted(error: BaseException | None) -> int:
    from tuner.driver.ending import NOTHING_KEPT
    from tuner.signals import StopRequested

    if isinstance(error, StopRequested):
        _say(NOTHING_KEPT)
        return 128 + error.number
    _say("interrupted")
    return INTERRUPTED


def _of_users_code(error: BaseException) -> InputError | None:
    """The error, `sys.exit` too, with its file and line if the user's own code raised it in this process; else None."""
    if "tuner.importing" not in sys.modules or isinstance(error, InputError | click.ClickException):
        return None
    if not isinstance(error, Exception | SystemExit):
        return None
    from tuner.blame import of_error
    from tuner.importing import loaded

    for own in loaded():
        trouble = of_error(error, own.wrote)
        if trouble.where:
            remedy = "mend it, and say the command again; a search that had begun goes on with --resume"
            return trouble.error(f"{own}", where=trouble.where, expected="a program that answers", remedy=remedy)
    return None


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help
        click.echo(error.format_message(), err=True)
        return USAGE
    context = error.ctx if isinstance(error, click.UsageError) else None
    _say(f"error: {error.format_message()}")
    if context is not None:
        _say(f"  try: {context.command_path} --help")
    return USAGE


def _internal(error: BaseException) -> int:
    """Writes one line for the user, and the traceback into a log file."""
    import tempfile
    import traceback

    from tuner.redaction import redact

    told = " ".join(f"{type(error).__name__}: {error}".split())
    trace = "".join(traceback.format_exception(error))
    if os.environ.get("TUNER_TRACEBACK"):
        _say(trace.rstrip())
        return INTERNAL
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tuner-", suffix=".log", delete=False, encoding="utf-8") as log:
            log.write(redact(f"{' '.join(sys.argv)}\n\n{trace}"))
        where = f"the whole story is in {log.name}"
    except OSError:  # most likely a full disk, which is then also what the error comes from
        where = "say it again with TUNER_TRACEBACK=1 to see where"
    _say(f"error: {told[:300]}\n  this is a fault of the tuner itself; {where}")
    return INTERNAL


def _say(text: str) -> None:
    """Writes to standard error, secrets and escape codes taken out: an error may quote text that others wrote."""
    from tuner.redaction import redact

    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in redact(text))
    click.echo("".join(shown), err=True)
