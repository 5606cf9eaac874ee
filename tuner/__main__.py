"""`python -m tuner`, and the `tuner` command: the first and the last milliseconds, when Ctrl-C means just that."""

import os
import signal
import sys


def _leave(number: int, frame: object) -> None:
    """Ends at once: nothing has begun, or all is over, and whatever is being imported cannot be stopped halfway."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def main() -> None:
    """The entry point. Imports come after the handler: a Ctrl-C among them would print a traceback."""
    signal.signal(signal.SIGINT, _leave)
    from tuner.cli import run

    code = run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has its exit code, and Ray still has something to say at exit
    sys.exit(code)


if __name__ == "__main__":
    main()
