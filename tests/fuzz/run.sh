#!/bin/bash
# Fuzz every tests/fuzz/fuzz_*.c (or the ones named) with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tests/fuzz/run.sh [-n EXECUTIONS] [NAME...]      e.g. tests/fuzz/run.sh -n 10000000 can
#
# A target takes in the C that Cython made of its module. Inputs that led somewhere are kept in build/fuzz/corpus; one
# that fails is left in build/fuzz and named. Status: 0 no finding, 77 clang or its
# run-time is missing here, else a finding.
set -euo pipefail
runs=1000000
while getopts n: option; do
    case $option in
    n) runs=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
cd "$(dirname "$0")/../.."
command -v clang >/dev/null || { echo "fuzz: clang is missing (Debian package clang)"; exit 77; }
compgen -G "$(clang -print-resource-dir)/lib/*/libclang_rt.fuzzer*" >/dev/null ||
    { echo "fuzz: clang's run-time is missing (Debian package libclang-rt-dev)"; exit 77; }
python=.venv/bin/python
include=$($python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
[ $# -gt 0 ] || set -- $(ls tests/fuzz/fuzz_*.c | sed 's,.*/fuzz_\(.*\)\.c,\1,')
for name in "$@"; do
    out=build/fuzz/$name
    mkdir -p "$out" "build/fuzz/corpus/$name"
    # The interpreter's symbols stay open: nothing that is fuzzed calls into it.
    clang -g -O1 -std=gnu11 -w -fno-pie -no-pie -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        -fno-sanitize=function,vptr -I ext -I "$include" "tests/fuzz/fuzz_$name.c" $(ls tests/fuzz/part_"$name"_*.c 2>/dev/null) -o "$out/fuzz" -lm \
        -Wl,--unresolved-symbols=ignore-all
    seeds=()
    [ ! -d "tests/fuzz/corpus/$name" ] || seeds=("tests/fuzz/corpus/$name")
    echo "== fuzz $name, $runs executions"
    "$out/fuzz" -runs="$runs" -max_len=512 -timeout=10 -seed=1 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$out/" "build/fuzz/corpus/$name" ${seeds[@]+"${seeds[@]}"} 2>&1 | tee "$out/log" | tail -n 12
done
