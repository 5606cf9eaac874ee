"""`python -m tuner`, and the `tuner` command: the first and the last milliseconds, when Ctrl-C means just that."""

import sys

# `python -m` looks for every module first where it was started, which may be a folder with a stranger's `json.py`.
# Everything imported from here on is looked for there last.
if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

import contextlib
import os
import signal
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _Leave:
    """Ends at once: nothing has begun, or all is over, and whatever is being imported cannot be stopped halfway."""

    ends = True
    text = b"interrupted before anything began: the same command begins again\n"

    def __call__(self, number: int, frame: object) -> None:
        with contextlib.suppress(OSError):  # a closed terminal
            os.write(2, self.text)
        os._exit(128 + number)


def main() -> None:
    """The entry point. Imports come after the handler: a Ctrl-C among them would print a traceback."""
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means it
            signal.signal(number, _Leave())
    from tuner.streams import open_closed

    open_closed()
    from tuner.surroundings import furnish

    furnish()
    from tuner.cli import run

    code = run()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it has its exit code, and Ray still has something to say at exit
    if code > 128 or any(thread.name.startswith("tracker ") for thread in threading.enumerate()):
        # Where a signal came while Ray was starting, its threads crash an interpreter that takes itself apart in order
        # (-11 or -6 instead of 143). What it had started ends with this process. And a tracker that was left behind:
        # at exit its library would wait for its server once more (wandb for a minute).
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
