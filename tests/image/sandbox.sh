#!/usr/bin/env bash
# Runs a command in the unpacked root of an image, as `docker run` would: as any uid, with its volumes, and if wanted
# with a read-only root, a fresh /tmp and no network. Started by running.py in name spaces of its own, so that every
# mount ends with the command, and the command replaces this script.
#
# ROOT OWNER(uid:gid) WORKDIR READ_ONLY(yes|no) TMPFS(yes|no)   VOLUMES: lines of HOST:INSIDE[:ro]   arguments: the words
# that follow env -i, variables first.
set -euo pipefail

add() { # HOST INSIDE [ro]
    if [[ -d $1 ]]; then
        mkdir -p "$ROOT$2"
    else
        mkdir -p "$(dirname "$ROOT$2")"
        [[ -e $ROOT$2 ]] || touch "$ROOT$2"
    fi
    mount --bind "$1" "$ROOT$2"
    [[ ${3:-} != ro ]] || mount -o remount,bind,ro "$ROOT$2"
}

devices() {
    local name
    mount -t tmpfs -o mode=755 none "$ROOT/dev"
    for name in null zero full random urandom; do
        touch "$ROOT/dev/$name"
        mount --bind "/dev/$name" "$ROOT/dev/$name"
    done
    ln -s /proc/self/fd "$ROOT/dev/fd"
    mkdir "$ROOT/dev/shm"
    mount -t tmpfs -o mode=1777 none "$ROOT/dev/shm"
}

mount --bind "$ROOT" "$ROOT"
cd /
mount --bind /proc "$ROOT/proc"
add /sys /sys ro
devices
if [[ $TMPFS == yes ]]; then mount -t tmpfs -o mode=1777 none "$ROOT/tmp"; fi
while IFS=: read -r host inside how; do
    [[ -z $host ]] || add "$host" "$inside" "$how"
done <<<"$VOLUMES"
mkdir -p "$ROOT$WORKDIR"
if [[ $READ_ONLY == yes ]]; then mount -o remount,bind,ro "$ROOT"; fi
exec setpriv --no-new-privs chroot --userspec="$OWNER" --groups= "$ROOT" /usr/bin/env -i --chdir="$WORKDIR" "$@"
