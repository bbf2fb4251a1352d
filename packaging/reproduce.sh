#!/bin/sh
# Build the wheel and the Debian package twice, in different folders and at different times, and compare the bytes.
# Of the commit that is checked out; what is not committed is not built. REUSE=1: of the modules that are built already,
# so that only the packing is tried. Exit 1: they differ, and the files that do are named.
set -eu
root=$(dirname "$(dirname "$(realpath "$0")")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
for place in first "second/in a longer path"; do
    mkdir -p "$work/$(dirname "$place")"
    folder=$work/$(echo "$place" | tr ' ' '_')
    git clone -q "$root" "$folder"
    if [ -n "${REUSE:-}" ]; then
        (cd "$root" && find ext \( -name '*.so' -o -name '*.c' \) -print0 | xargs -0 cp --parents -pt "$folder")
    fi
    "$folder/packaging/deb.sh"
    sleep 2 # another time on every file
done
second=$work/second/in_a_longer_path
failed=0
for file in "$work"/first/dist/*.deb; do
    cmp "$file" "$second/dist/$(basename "$file")" || failed=1
done
for file in "$work"/first/build/deb/wheel/*.whl; do
    cmp "$file" "$second/build/deb/wheel/$(basename "$file")" || failed=1
done
[ $failed = 0 ] || { diff -rq "$work/first/build/deb/stage" "$second/build/deb/stage" >&2 || true; exit 1; }
(cd "$work/first" && sha256sum dist/*.deb build/deb/wheel/*.whl)
echo "reproduce: the same bytes"
