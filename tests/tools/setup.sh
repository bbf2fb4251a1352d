#!/bin/sh
# Make the virtual environment with everything that the demo and the tests import.
# Called by the Makefile; PYTHON and VENV come from there. NEWEST=1 takes the newest versions, not those of constraints.txt.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

missing=
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $PYTHON is $("$PYTHON" -V 2>&1); Tidegate needs Python 3.11 or newer (make PYTHON=python3.12 ...)" >&2
    exit 1
}
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] || missing="$missing python3-dev"
command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "== setup: installing$missing"
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $missing >/dev/null
    else
        echo "setup: this machine lacks$missing; install them (sudo apt-get install$missing) and run make again" >&2
        exit 1
    fi
fi

pinned="-c constraints.txt"
[ -z "${NEWEST:-}" ] || pinned=--upgrade
echo "== setup: python packages into $VENV (a minute)"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install -q --disable-pip-version-check $pinned "setuptools>=77" "cython>=3.1,<4" wheel
TIDEGATE_MAPPING_ONLY=1 "$VENV/bin/python" -m pip install -q --disable-pip-version-check $pinned --no-build-isolation -e ".[all,dev,docs]"
