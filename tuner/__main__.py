"""`python -m tuner` and the `tuner` command: a signal before the command begins ends the process at once."""

import sys

# `python -m` puts the current folder first in sys.path, and a stranger's `json.py` may lie there: it is made the last
if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

import contextlib
import os
import signal
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _ExitAtOnce:
    """A signal handler that ends the process at once: before a search handles signals, and after it."""

    ends = True
    """`StopSignals` reads it: this handler does not return."""
    text = b"interrupted before anything began: the same command begins again\n"

    def __call__(self, number: int, frame: object) -> None:
        with contextlib.suppress(OSError):  # a closed terminal
            os.write(2, self.text)
        os._exit(128 + number)


def main() -> None:
    """The entry point. Imports come after the handler: a Ctrl-C among them would print a traceback."""
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores it on purpose
            signal.signal(number, _ExitAtOnce())
    from tuner.streams import open_closed

    open_closed()
    from tuner.surroundings import complete_environment

    complete_environment()
    from tuner.cli import run

    code = run()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the exit code is decided, and Ray still runs code at exit
    if code > 128 or any(thread.name.startswith("tracker ") for thread in threading.enumerate()):
        # After a signal during Ray's start, Ray's threads crash an interpreter that finalizes (-11 or -6 instead of
        # 143); what Ray had started ends with this process. And where a tracker's thread still runs, its library would
        # wait for its server once more at exit (wandb for a minute).
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
