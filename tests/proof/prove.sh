#!/bin/sh
# Prove the contracts of ext/safety/safety.c with Frama-C/WP and Z3; prints the number of goals, fails unless all are proved.
#
# usage: prove.sh [FILE]     FILE is safety.c (which includes its parts) or one text of them all with a planted fault
# Needs the Debian packages frama-c-base, why3 and z3; installs nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
file=${1:-$root/ext/safety/safety.c}
functions=${FUNCTIONS:-}
seconds=${SECONDS_PER_GOAL:-3600} # only a safeguard: tests/proof/z3 bounds each try by steps
for tool in frama-c why3 z3; do
    command -v $tool >/dev/null || { echo "prove: $tool is missing: apt-get install frama-c-base why3 z3" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(z3 --version | sed 's/.*version \([0-9.]*\).*/\1/')
cat >"$work/why3.conf" <<CONF
[main]
magic = 14
memlimit = 2000
running_provers_max = 2
timelimit = $seconds

[partial_prover]
name = "Z3"
path = "$here/z3"
version = "$version"
CONF
log=${LOG:-$work/log}
proved=0
goals=0

# run FILE [WP options]: prove, name what fails, add up.
run() {
    WHY3CONFIG=$work/why3.conf frama-c -c11 -cpp-extra-args="-I$root/ext -I$root/ext/safety" -wp -wp-rte -wp-prover z3 -wp-cache none \
        -wp-timeout "$seconds" -wp-par "${PAR:-2}" "$@" >"$log" 2>&1 || {
        tail -5 "$log" >&2
        exit 2
    }
    line=$(grep "Proved goals" "$log" || true)
    [ -n "$line" ] || { tail -5 "$log" >&2; exit 2; }
    proved=$((proved + $(echo "$line" | sed 's/.*: *\([0-9]*\) *\/.*/\1/')))
    goals=$((goals + $(echo "$line" | sed 's/.*\/ *\([0-9]*\).*/\1/')))
    grep -E "Goal .* : (Failed|Timeout|Unknown|Stepout)" "$log" | sed 's/.*Goal typed_/not proved: /; s/ : .*//' || true
}

run "$file" ${functions:+-wp-fct "$functions"}
if [ $# = 0 ] && [ -z "$functions" ]; then # what relates two runs of the gate, and the lemmas that it needs
    run "$here/relations.c" -wp-fct a_tighter_envelope_is_no_wider,a_tighter_gate_never_gives_more
    run "$here/relations.c" -wp-prop "$(sed -n 's/.*lemma \([a-z_]*\):.*/\1/p' "$here/relations.c" | paste -sd,)"
fi
echo "proved $proved of $goals goals"
[ "$proved" = "$goals" ]
