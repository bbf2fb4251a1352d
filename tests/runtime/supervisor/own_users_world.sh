#!/bin/bash
# own_users_world.sh PASSWD GROUP FOLDER... -- CMD: run CMD where the machine has other users, and each FOLDER can be entered
# by anybody. To be run in a mount namespace of its own: nothing of it reaches the machine around it.
set -eu
passwd=$1 group=$2
shift 2
mount --make-rprivate /
folders=() held=()
while [ "$1" != -- ]; do
    folders+=("$1")
    held+=("$(mktemp -d)")
    mount --bind "$1" "${held[-1]}"
    shift
done
shift
for folder in "${folders[@]}"; do
    above=$folder closed=
    while [ "$above" != / ]; do
        above=$(dirname "$above")
        case $(stat -c %A "$above") in *[xt]) ;; *) closed=$above ;; esac
    done
    # What is above it and not open to everybody is covered.
    [ -z "$closed" ] || mount -t tmpfs -o mode=755 tmpfs "$closed"
done
for number in "${!folders[@]}"; do
    mkdir -p "${folders[number]}"
    mount --move "${held[number]}" "${folders[number]}"
    rmdir "${held[number]}" 2>/dev/null || true
done
mount --bind "$passwd" /etc/passwd
mount --bind "$group" /etc/group
exec "$@"
