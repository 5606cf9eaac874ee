"""Every way a command can fail, told in the user's words and turned into an exit code."""

from __future__ import annotations

import os
import sys

import click

from tuner.contract import Fault, InputError
from tuner.streams import OutputError

USAGE = 2
FAILED = 1
"""What a program was asked for it could not do, and it said why."""
INTERNAL = 70
"""A fault of the tuner itself (EX_SOFTWARE of sysexits.h). Not 1: that says that a search ran and found nothing."""
INTERRUPTED = 130
CLOSED_PIPE = 141
"""128 + SIGPIPE, what a shell reports of a program that prints and whose reader (`| head`) went away."""


class BrokenPipeBeneathError(Exception):
    """A broken pipe that is not our output's, under another name: click answers the real one itself, with code 1."""


class InterruptError(Exception):
    """A signal under another name: click would print a line and keep the number to itself."""


def exit_code_of(error: BaseException) -> int:
    """Tells the error on standard error and returns the exit code it stands for."""
    if (own := _of_their_code(error)) is not None:
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
    if isinstance(error, Fault):  # of a program, in a process of its own: a merge, say
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


def _of_their_code(error: BaseException) -> InputError | None:
    """What a program of the user's raised in this process, `sys.exit` too; None where no line of theirs was met."""
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
    """One line for the user, everything for whoever looks into it."""
    import tempfile
    import traceback

    from tuner.redaction import redact

    told = " ".join(f"{type(error).__name__}: {error}".split())
    whole = "".join(traceback.format_exception(error))
    if os.environ.get("TUNER_TRACEBACK"):
        _say(whole.rstrip())
        return INTERNAL
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tuner-", suffix=".log", delete=False, encoding="utf-8") as log:
            log.write(redact(f"{' '.join(sys.argv)}\n\n{whole}"))
        where = f"the whole story is in {log.name}"
    except OSError:  # a full disk, most likely what went wrong in the first place
        where = "say it again with TUNER_TRACEBACK=1 to see where"
    _say(f"error: {told[:300]}\n  this is a fault of the tuner itself; {where}")
    return INTERNAL


def _say(text: str) -> None:
    """What was wrong may be named by whoever wrote it: no escape code of theirs reaches the terminal."""
    from tuner.redaction import redact

    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in redact(text))
    click.echo("".join(shown), err=True)
