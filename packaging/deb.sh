#!/bin/sh
# Build dist/tidegate_VERSION_ARCH.deb: the wheel and all that it imports in a virtual environment below /usr/lib/tidegate.
# It is made for the Python of this machine's Debian (PYTHON, default /usr/bin/python3) and depends on that version.
# pip fetches the wheels as it is configured, in the versions of constraints.txt; whoever installs the package needs no
# network.
#   ARCH=arm64     for another machine, by Debian's cross compiler (packaging/cross.py names what it lacks)
#   REUSE=1        take the modules that `make build` compiled, where they are for the same Python; else compile anew
#   DEB_VERSION=V  another version than that of pyproject.toml
#   LEVEL=N        of xz, 0 to 9; 3 otherwise
set -eu
PYTHON=${PYTHON:-/usr/bin/python3}
here=$(dirname "$(realpath "$0")")
root=$(dirname "$here")
work=$root/build/deb
out=${OUT:-$root/dist}

missing=
for tool in dpkg-deb dpkg gzip; do command -v $tool >/dev/null || missing="$missing $tool"; done
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -f "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')" ] || missing="$missing python3-dev"
command -v cc >/dev/null || command -v gcc >/dev/null || missing="$missing gcc"
own=$(dpkg --print-architecture)
arch=${ARCH:-$own}
cross= # what setup.py and pip are told of another machine
wheels= # and which wheels it takes
if [ "$arch" != "$own" ]; then
    [ "$arch" = arm64 ] || { echo "make deb: ARCH=$arch: only arm64 can be built on another machine" >&2; exit 64; }
    "$PYTHON" "$here/cross.py" root "$arch" >/dev/null
    cross=$("$PYTHON" "$here/cross.py" env "$arch")
    wheels=$("$PYTHON" "$here/cross.py" pip "$arch")
fi
[ -z "$missing" ] || { echo "make deb: this machine lacks$missing (apt-get install)" >&2; exit 77; }

rm -rf "$work" && mkdir -p "$work" "$out"
stage=$work/stage
lib=$stage/usr/lib/tidegate
pyversion=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pynext=$("$PYTHON" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
# What Python says of the machine that is built for.
there() { (eval "$cross" && "$PYTHON" -c "$1"); }
suffix=$(there 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
site=$lib/lib/python$pyversion/site-packages
# The day of the commit stands in every file's place of a time, so that a second build gives the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

echo "== wheel"
"$PYTHON" -m venv "$work/tools"
pip="$work/tools/bin/python -m pip -q -q --disable-pip-version-check"
$pip install -c "$root/constraints.txt" "setuptools>=77" "cython>=3.1,<4" wheel
mkdir "$work/source"
(cd "$root" && cp -pR runtime ext hal config packaging setup.py pyproject.toml README.md LICENSE CHANGELOG.md constraints.txt \
    constraints-hashes.txt "$work/source")
find "$work/source" \( -name __pycache__ -o -name '*.so' \) -prune -exec rm -rf {} +
if [ -n "${REUSE:-}" ]; then
    # `make build` has just brought them up to date; the name of each tells the Python that it is for. Touched, since
    # Cython also looks at the files of its own installation, which in the tools' environment are newer than any.
    built=$(there 'import sys, sysconfig; print("lib.%s-%s" % (sysconfig.get_platform(), sys.implementation.cache_tag))')
    made=$root
    [ "$arch" = "$own" ] || made=$root/build/arm/$arch/lib/tidegate # by make arm
    for module in "$made"/ext/*/*"$suffix"; do
        [ -f "$module" ] || continue
        room="$work/source/build/$built/tidegate/ext/$(basename "$(dirname "$module")")"
        mkdir -p "$room"
        cp "$module" "$room"
        touch "$room/$(basename "$module")"
    done
    find "$work/source/ext" -name '*.c' -exec touch {} +
    find "$work/source/build" -name '*.so' -exec touch {} + # the last of all, or they would be made anew
else
    find "$work/source/ext" -name '*.c' ! -name safety.c -delete
fi
(eval "$cross" && $pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheel" "$work/source")

echo "== what it imports"
"$PYTHON" -m venv --without-pip "$lib"
[ -z "$wheels" ] || wheels="$wheels --only-binary=:all:"
# shellcheck disable=SC2086
$pip install -c "$root/constraints.txt" $wheels --target "$site" --no-compile --report "$work/report.json" "$(ls "$work"/wheel/*.whl)[all]"
# Nothing goes on whose bytes are not those that constraints-hashes.txt knows.
"$PYTHON" "$here/hashes.py" "$work/report.json"
# The environment was made below the stage; its paths must be those of the installed machine.
rm -rf "$lib/bin" "$lib/include" "$lib/lib64" "$site/bin"
mkdir -p "$lib/bin"
ln -s "/usr/bin/python$pyversion" "$lib/bin/python3"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$pyversion" >"$lib/pyvenv.cfg"
# Tests of the libraries stay out, and where pip found each wheel on the building machine.
find "$site" \( -type d -name tests -o -name direct_url.json \) -prune -exec rm -rf {} +
# What pip wrote down of those, and of commands whose first line names the building machine's Python.
find "$site" -path '*.dist-info/RECORD' -exec sed -i -e '\#^\(\.\./\)*bin/#d' -e '\#/direct_url\.json,#d' {} +
# Compiled here, as the service may not write there; valid whatever the clock says.
"$PYTHON" -m compileall -q -j 0 -s "$stage" -p / --invalidation-mode unchecked-hash "$site" >"$work/compile.log" ||
    { cat "$work/compile.log" >&2; exit 1; }

echo "== package"
version=$(ls "$work"/wheel/*.whl | sed 's/.*tidegate-\([^-]*\)-.*/\1/')
version=${DEB_VERSION:-$version}
install -D -m 755 "$here/debian/tidegate" "$stage/usr/bin/tidegate"
install -D -m 644 "$here/systemd/tidegate@.service" "$stage/usr/lib/systemd/system/tidegate@.service"
for unit in web notify planner island-devices backup; do
    install -D -m 644 "$here/systemd/tidegate-$unit@.service" "$stage/usr/lib/systemd/system/tidegate-$unit@.service"
done
install -D -m 644 "$here/systemd/tidegate-backup@.timer" "$stage/usr/lib/systemd/system/tidegate-backup@.timer"
install -D -m 644 "$here/udev/60-tidegate.rules" "$stage/usr/lib/udev/rules.d/60-tidegate.rules"
install -D -m 644 "$here/sysusers/tidegate.conf" "$stage/usr/lib/sysusers.d/tidegate.conf"
install -D -m 644 "$here/tmpfiles/tidegate.conf" "$stage/usr/lib/tmpfiles.d/tidegate.conf"
install -D -m 644 "$here/debian/default" "$stage/etc/default/tidegate"
install -D -m 644 "$here/debian/limits.conf" "$stage/etc/security/limits.d/tidegate.conf"
doc=$stage/usr/share/doc/tidegate
mkdir -p "$doc/examples"
install -m 644 "$root"/docs/*.md "$root/README.md" "$doc"
install -m 644 "$root/LICENSE" "$doc/copyright"
"$PYTHON" "$here/sbom.py" "$doc" "$site"
gzip -9n <"$root/CHANGELOG.md" >"$doc/changelog.gz"
install -m 644 "$root"/config/sites/*.toml "$here"/network/* "$here"/monitoring/tidegate-* "$doc/examples"

mkdir -p "$stage/DEBIAN"
for name in postinst prerm postrm; do install -m 755 "$here/debian/$name" "$stage/DEBIAN/$name"; done
install -m 644 "$here/debian/conffiles" "$stage/DEBIAN/conffiles"
libc=$("$PYTHON" -c 'import platform; print(platform.libc_ver()[1])')
# As Debian counts: each file in whole KiB, 1 for what is none. What a disk makes of it differs from build to build.
size=$(find "$stage" -path "$stage/DEBIAN" -prune -o -printf '%y %s\n' |
    awk '{ kib += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print kib }')
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" -e "s/@LIBC@/$libc/" \
    -e "s/@PYTHON@/$pyversion/" -e "s/@PYTHON_NEXT@/$pynext/" "$here/debian/control.in" >"$stage/DEBIAN/control"
(cd "$stage" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$stage" -type d -exec chmod 755 {} +
chmod -R go-w "$stage"
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
deb=$out/tidegate_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz -z"${LEVEL:-3}" --build "$stage" "$work/part" >/dev/null
mv "$work/part" "$deb"
echo "$deb: $(du -h "$deb" | cut -f1), $((size / 1024)) MiB installed"
