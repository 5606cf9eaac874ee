"""Writes a search as a Slurm batch script that starts a Ray cluster in its allocation.

For clusters whose nodes share the folder that the script is submitted from, and the Python environment. Two minutes
before its time is up Slurm sends SIGTERM: the search saves its state, and the job goes into the queue again and
resumes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAVED = 143
"""Exit code of a search that SIGTERM has ended."""


@dataclass(frozen=True)
class Allocation:
    """What is asked of Slurm."""

    nodes: int = 1
    """Nodes of the job."""
    gpus: int = 1
    """GPUs of each node."""
    cpus: int = 8
    """CPU cores of each node."""
    hours: float = 24.0
    """The job's time limit."""
    partition: str | None = None
    """Slurm's partition; None: its default."""
    account: str | None = None
    """Slurm's account; None: the user's default."""


def batch_script(name: str, arguments: Sequence[str], asked: Allocation, *, python: Path, folder: Path) -> str:
    """The script for the search `name`. arguments: of `tuner search`, in `folder`. python: the interpreter's path, the
    same on every node."""
    minutes = max(1, round(asked.hours * 60))
    directives = [
        f"--job-name={name}",
        f"--nodes={asked.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={asked.cpus}",
        *([f"--gpus-per-node={asked.gpus}"] if asked.gpus else []),
        f"--time={minutes // 60:02d}:{minutes % 60:02d}:00",
        *([f"--partition={asked.partition}"] if asked.partition else []),
        *([f"--account={asked.account}"] if asked.account else []),
        "--output=%x-%j.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:TERM@120",
    ]
    head = "\n".join(f"#SBATCH {directive}" for directive in directives)
    command = shlex.join(["-m", "tuner", "search", *arguments, "--or-resume", "--plain"])
    body = _BODY
    for key, value in {
        "@PYTHON@": shlex.quote(str(python)),
        "@FOLDER@": shlex.quote(str(folder)),
        "@GPUS@": str(asked.gpus),
        "@COMMAND@": command,
        "@SAVED@": str(SAVED),
    }.items():
        body = body.replace(key, value)
    return f"#!/bin/bash\n# The search {name} on Slurm: sbatch this file.\n{head}\n{body}"


_BODY = """set -euo pipefail
cd @FOLDER@
python=@PYTHON@

# Ports and folders by the job's number, so that two jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
address=${nodes[0]}:$port
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
unset RAY_ADDRESS

ray_start() { # NODE ARGUMENT...
  local node=$1 log=$SLURM_SUBMIT_DIR/$SLURM_JOB_NAME-$SLURM_JOB_ID-$1.log
  shift
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" --export=ALL "$python" -m ray.scripts.scripts start --block \\
    --disable-usage-stats --temp-dir "/tmp/ray-$SLURM_JOB_ID" --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus @GPUS@ \\
    --dashboard-agent-listen-port $((port + 20001)) "$@" >>"$log" 2>&1 &
}

joined() { # COUNT
  "$python" - "$address" "$1" <<'PY'
import sys, time

from ray._raylet import GcsClient

deadline, alive = time.monotonic() + 300, 0
while alive < int(sys.argv[2]):
    if time.monotonic() > deadline:
        sys.exit(f"only {alive} of {sys.argv[2]} nodes joined within 5 minutes: see their logs")
    time.sleep(1)
    try:
        alive = sum(node.state == 0 for node in GcsClient(address=sys.argv[1]).get_all_node_info().values())
    except Exception:
        pass
PY
}

ray_start "${nodes[0]}" --head --port "$port" --dashboard-port $((port + 20000)) --dashboard-host 127.0.0.1
joined 1
for node in "${nodes[@]:1}"; do ray_start "$node" --address "$address"; done
joined "${#nodes[@]}"

"$python" @COMMAND@ --address "$address" &
search=$!
trap 'kill -TERM $search 2>/dev/null' TERM
code=0
wait $search || code=$?
# A signal ends the first wait, and the search needs a moment to save itself.
while kill -0 $search 2>/dev/null; do code=0; wait $search || code=$?; done
kill $(jobs -p) 2>/dev/null || true
wait || true
if [ "$code" -eq @SAVED@ ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""
