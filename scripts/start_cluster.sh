#!/usr/bin/env bash
# A Ray cluster of several nodes on this machine, to try a search on before a real one: own ports, own temporary folder,
# token authentication on, the dashboard on loopback.
#
#   scripts/start_cluster.sh 3        a head and two further nodes, and the lines that use them
#   scripts/start_cluster.sh kill 2   ends node 2 at once, as a machine that loses its power does (0 is the head)
#   scripts/start_cluster.sh stop     ends all nodes of this cluster; other Ray clusters on this machine go on
#
# Environment variables, with their defaults: NODE_CPUS (1), NODE_GPUS (0) and NODE_RESOURCES ({}) are what each node
# has; NODE_RESOURCES_2 is for node 2 alone. NODE_PRIVATE_2 is a folder on a file system that only node 2 sees (needs
# root). TUNER_CLUSTER_DIR (/tmp/tuner-cluster-<user id>) holds the token, process ids and logs; its path must be short,
# because Ray keeps sockets below it.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
DIR=${TUNER_CLUSTER_DIR:-/tmp/tuner-cluster-$(id -u)}
PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")

# Every node is a session of its own (setsid), so that its processes are found whatever their parents are by now.
session_of() { cat "$DIR/node-$1.pid"; }
members() { ps -o pid= -s "$1" || true; }

end_node() { # NUMBER SIGNAL
  local session
  session=$(session_of "$1")
  # shellcheck disable=SC2046
  kill "-$2" $(members "$session") 2>/dev/null || true
}

stop() {
  local file number
  for file in "$DIR"/node-*.pid; do
    [ -e "$file" ] || { echo "no cluster in $DIR"; return; }
    number=${file##*node-}
    end_node "${number%.pid}" TERM
  done
  for _ in $(seq 30); do
    [ -n "$(for file in "$DIR"/node-*.pid; do members "$(cat "$file")"; done)" ] || break
    sleep 0.1
  done
  for file in "$DIR"/node-*.pid; do
    number=${file##*node-}
    end_node "${number%.pid}" KILL
  done
  rm -rf "$DIR"
}

free_ports() { # COUNT
  "$PYTHON" - "$1" <<'PY'
import socket, sys

held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
PY
}

start_node() { # NUMBER ARGUMENT...
  local number=$1 agent resources=NODE_RESOURCES_$1 private=NODE_PRIVATE_$1 apart=()
  shift
  if [ -n "${!private:-}" ]; then
    mkdir -p "${!private}"
    apart=(unshare --mount bash -c 'mount -t tmpfs none "$0" && exec "$@"' "${!private}")
  fi
  read -r agent <<<"$(free_ports 1)"
  # --temp-dir: nodes with the same one delete each other's copies of a job's working folder.
  # PATH: a job's entry point is a shell command, and its `python` must be the one that has the packages.
  PATH=$(dirname "$PYTHON"):$PATH setsid "${apart[@]}" "$PYTHON" -m ray.scripts.scripts start --block --disable-usage-stats \
    --num-cpus "${NODE_CPUS:-1}" --num-gpus "${NODE_GPUS:-0}" \
    --resources "${!resources:-${NODE_RESOURCES:-{\}}}" --object-store-memory 100000000 \
    --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port "$agent" --temp-dir "$DIR/$number" "$@" \
    >"$DIR/node-$number.log" 2>&1 </dev/null &
  echo $! >"$DIR/node-$number.pid"
}

start() { # NODES
  local nodes=$1 gcs dashboard client number
  [ ! -e "$DIR" ] || { echo "$DIR is there already: scripts/start_cluster.sh stop" >&2; exit 2; }
  (umask 077 && mkdir -p "$DIR" && "$PYTHON" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$DIR/token")
  read -r gcs dashboard client <<<"$(free_ports 3)"
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$DIR/token
  unset RAY_ADDRESS RAY_AUTH_TOKEN
  trap 'tail -n 5 "$DIR"/node-*.log >&2; stop' ERR
  start_node 0 --head --port "$gcs" --dashboard-host 127.0.0.1 --dashboard-port "$dashboard" \
    --ray-client-server-port "$client"
  wait_for 1 "127.0.0.1:$gcs"
  # One after another: Ray takes two nodes that start at once on one address for each other, and gives up.
  for number in $(seq 1 $((nodes - 1))); do
    start_node "$number" --address "127.0.0.1:$gcs"
    wait_for $((number + 1)) "127.0.0.1:$gcs"
  done
  cat >"$DIR/env" <<ENV
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$DIR/token
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard
export TUNER_CLUSTER_ADDRESS=127.0.0.1:$gcs
ENV
  cat <<TEXT
$nodes nodes. For this shell:
  . $DIR/env
then:
  python -m tuner submit my_search.yaml --name first --address http://127.0.0.1:$dashboard --storage-path /tmp/runs
  python -m tuner status first --address http://127.0.0.1:$dashboard
  python -m tuner search my_search.yaml --address 127.0.0.1:$gcs
to end them:
  scripts/start_cluster.sh stop
TEXT
}

wait_for() { # NODES ADDRESS
  "$PYTHON" - "$@" <<'PY'
import sys, time

from ray._raylet import GcsClient

wanted, address = int(sys.argv[1]), sys.argv[2]
deadline = time.monotonic() + 90
while True:
    try:
        alive = sum(node.state == 0 for node in GcsClient(address=address).get_all_node_info().values())
    except Exception as error:
        alive = 0
    if alive >= wanted:
        break
    if time.monotonic() > deadline:
        sys.exit(f"only {alive} of {wanted} nodes came up: see the logs beside the token")
    time.sleep(0.2)
PY
}

case "${1:-}" in
  stop) stop ;;
  kill) end_node "${2:?the number of a node}" KILL ;;
  [1-9] | [1-9][0-9]) start "$1" ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
