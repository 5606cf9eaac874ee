"""The command line: one thin file a command, its imports inside the command.

search, plan, data, model, status, show, report, compare, stop, add, pause, resume, dashboard, evaluate, export, train,
spaces, submit, doctor, mcp: the commands
options.py   options that several commands share
output.py    what a command writes, and to which stream
errors.py    the message and the exit code of every failure
asking.py    a request to the driver of a running search
following.py a search that runs elsewhere, shown until it ends
manifest.py  `submit --kuberay` and `--slurm`

`python -m tuner --help` imports click and these files and nothing else, so that it answers at once. Exit codes:
0 done, 1 no usable trial or a halted search, 2 the user's input, 3 done with failed trials, 70 a fault of the tuner
itself, 128 + signal after one (130, 143, 129, 131), 141 if the output of a command that prints has no reader.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

from tuner import __version__
from tuner.addresses import go_past_proxies
from tuner.cli.errors import BrokenPipeBeneathError, InterruptError, exit_code_of
from tuner.error_text import nearest
from tuner.streams import standard_streams

COMMANDS = (
    "search", "plan", "data", "model", "status", "show", "report", "compare", "stop", "add", "pause", "resume",
    "dashboard", "evaluate", "export", "train", "spaces", "submit", "doctor", "mcp",
)  # fmt: skip
"""In the order of the help. A command's file is `tuner/cli/<name>.py`, and the command in it is `command`."""

PROGRAM = "python -m tuner"
"""What the help and the errors call this program."""


class Commands(click.Group):
    """Finds a command by importing its file when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"tuner.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise BrokenPipeBeneathError from error
        except KeyboardInterrupt as error:
            raise InterruptError from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = nearest(args[0], COMMANDS)
            hint = f"did you mean {near}?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx=ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="tuner %(version)s")
def cli() -> None:
    """Finds good LoRA and QLoRA hyperparameters for your model and your data.

    \b
    python -m tuner search                    the embedded example, on this machine
    python -m tuner search my_search.yaml     your own
    python -m tuner search --model Qwen/Qwen3-8B --data train.jsonl --space qlora
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code. Errors are written to standard error and not raised."""
    go_past_proxies()
    with standard_streams():
        try:
            result = cli.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
            return result if isinstance(result, int) else 0
        except BaseException as error:
            return exit_code_of(error)
