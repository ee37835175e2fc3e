# Functions of deploy/rehearse that run other programs. The file is sourced, and expects $dir, an exclusive directory.
# shellcheck shell=bash

: "${dir:?an exclusive directory for the rehearsal}"
declare -A pid=()

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() {
    say "FAILED: $*"
    exit 1
}

stop_all() {
    local status=$? name
    trap '' INT TERM
    rm -f "$dir/driving"
    for name in "${!pid[@]}"; do kill "${pid[$name]}" 2>/dev/null || true; done
    # A suspended process does not end before it continues.
    for name in "${!pid[@]}"; do kill -CONT "${pid[$name]}" 2>/dev/null || true; done
    for name in "${!pid[@]}"; do
        # Ten seconds for a graceful exit, then SIGKILL.
        timeout 10 tail --pid="${pid[$name]}" -s 0.05 -f /dev/null || kill -9 "${pid[$name]}" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    # No logs when the user stops it with a signal.
    if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ "$status" -ne 143 ]; then
        for name in "$dir"/*.log; do
            echo "--- ${name##*/}: last lines"
            tail -n 15 "$name"
        done
    fi
    rm -rf "$dir"
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Ports below the ephemeral range of the system, and apart from those that the other tests use for servers.
taken=" "
free_port() { # free_port: sets $port
    while :; do
        port=$((10000 + RANDOM % 2000))
        case $taken in *" $port "*) continue ;; esac
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    taken="$taken$port "
}

start() { # start NAME COMMAND...: in the background; killed when this script ends for any reason
    local name=$1
    shift
    setpriv --pdeathsig KILL -- "$@" >>"$dir/$name.log" 2>&1 </dev/null &
    pid[$name]=$!
}

until_true() { # until_true SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what"
        sleep 0.1
    done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

kill_hard() { # kill_hard NAME
    kill -9 "${pid[$1]}"
    # Suppresses the shell's message about the killed job.
    wait "${pid[$1]}" 2>/dev/null || true
}

suspend() { kill -STOP "${pid[$1]}"; } # suspend NAME
resume() { kill -CONT "${pid[$1]}"; }  # resume NAME
