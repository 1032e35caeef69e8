# shellcheck shell=bash
# One command at a time, with signals passed on to it. Sourced by run.sh.
#
# A runner that cancels a job sends SIGINT to this process and SIGTERM 7.5 s later. Bash would act on neither before the
# command has ended, so the command runs in the background; with job control, or it would be deaf to SIGINT.

heard= # the last signal
child= # the process group that runs
status=0

listen() {
    trap 'relay INT' INT
    trap 'relay TERM' TERM
    trap 'relay HUP' HUP
}

relay() { # SIGNAL
    heard=$1
    if [[ -n $child ]]; then kill -s "$1" -- "-$child" 2>/dev/null || true; fi
}

run_child() { # COMMAND…: run it to its end; its exit code is in status, 255 if it cannot be known
    rm -f "$work/code"
    set -m
    guard "$@" </dev/null &
    child=$!
    set +m
    if [[ -n $heard ]]; then relay "$heard"; fi
    wait "$child" 2>/dev/null || true # until a signal comes, or the end
    while kill -0 "$child" 2>/dev/null; do sleep 0.1; done
    child=
    status=255
    [[ ! -s $work/code ]] || read -r status <"$work/code"
}

guard() { # COMMAND…: note how it ends. Here, for a wait that a signal interrupts may lose the exit code
    local code=0
    trap - EXIT
    trap : INT TERM HUP # to outlive the command, for which they are as they were
    "$@" || code=$?
    echo "$code" >"$work/code"
}

stop_if_interrupted() { # before the tool has run, there is nothing to report
    case $heard in
        INT) finish 130 ;;
        TERM) finish 143 ;;
        HUP) finish 129 ;;
    esac
}
