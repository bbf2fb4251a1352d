#!/bin/sh
# Write constraints.txt anew: the newest versions that pyproject.toml allows, as an empty environment gets them.
# Called by `make constraints`; PYTHON comes from there. CI, the Debian package and `make setup` take these versions.
set -eu
PYTHON=${PYTHON:-python3}
work=build/constraints
rm -rf "$work" && mkdir -p build
"$PYTHON" -m venv "$work"
pip="$work/bin/python -m pip -q --disable-pip-version-check"
$pip install "setuptools>=77" "cython>=3.1,<4" wheel
TIDEGATE_MAPPING_ONLY=1 $pip install --no-build-isolation -e ".[all,dev,docs]"
{
    echo "# What CI, the Debian package and make setup install; written by make constraints, on"
    echo "# $("$PYTHON" -c 'import platform; print("Python", platform.python_version(), "for", platform.machine())')."
    $pip freeze --all --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' | grep -v '^pip=='
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
# The SHA-256 of every archive of these versions, on all machines.
$pip install uv
printf 'setuptools\nwheel\ncython\n' >"$work/build.in"
"$work/bin/uv" pip compile -q pyproject.toml "$work/build.in" --all-extras -c constraints.txt --generate-hashes --no-header \
    --no-annotate --python-version "$("$PYTHON" -c 'import platform; print(platform.python_version())')" -o constraints-hashes.txt
rm -rf "$work"
