#!/bin/sh
# Is a package for arm64 what it says? Its head, every compiled file in it, and every module of the core imported under
# qemu-user with what the package brings. Usage: arm_deb.sh PACKAGE
set -eu
root=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
[ "$(dpkg-deb --field "$1" Architecture)" = arm64 ] || { echo "arm_deb: $1 is not for arm64" >&2; exit 1; }
dpkg-deb -x "$1" "$files"
find "$files" -name '*.so*' -type f >"$files.list"
[ "$(wc -l <"$files.list")" -ge 60 ] || { echo "arm_deb: hardly a compiled file in $1" >&2; exit 1; }
while read -r file; do
    readelf -h "$file" | grep -q 'Machine: *AArch64' || { echo "arm_deb: ${file#"$files"}: not for AArch64" >&2; exit 1; }
done <"$files.list"
count=$(wc -l <"$files.list")
rm "$files.list"
board=$("${PYTHON:-python3}" "$root/packaging/cross.py" root arm64 | tail -n 1)
site=$(find "$files/usr/lib/tidegate/lib" -maxdepth 2 -name site-packages)
PYTHONPATH=$site qemu-aarch64-static -L "$board" "$board/usr/bin/python3" - "$site" <<'END'
import importlib, pathlib, platform, sys

core = pathlib.Path(sys.argv[1], "tidegate/ext")
modules = sorted(path for path in core.rglob("*.so"))
for path in modules:
    importlib.import_module("tidegate.ext." + ".".join(path.relative_to(core).with_name(path.name.split(".")[0]).parts))
assert platform.machine() == "aarch64" and len(modules) >= 60, len(modules)
import tidegate.runtime.cli.main
print(f"arm64: {len(modules)} modules of the core and the commands import under qemu-user")
END
echo "$(basename "$1"): $count compiled files, all for AArch64"
