#!/bin/sh
# All set-up and then the run, on a fresh Debian or Ubuntu with Python 3.11 or later and nothing else:
#   sh tools/start.sh demo [OPTIONS]    the demo (options are those of `ooc-diffusion demo`)
#   sh tools/start.sh tests [OPTIONS]   style, types and tests (options are those of pytest)
#   sh tools/start.sh install           only the installation, into .venv
# Safe to run again: what is there is kept.
set -eu

usage() {
    sed -n '2,5s/^# *//p' "$0" >&2
    exit 2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "this needs root: $*" >&2
        return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root apt-get update -q >/dev/null && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >/dev/null
}

find_python() {
    for name in python3.11 python3 python3.12 python3.13; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            command -v "$name"
            return
        fi
    done
    echo "no Python 3.11 or later is here; install it first (apt-get install python3)" >&2
    exit 1
}

make_venv() {
    [ -x .venv/bin/pip ] && return
    python=$(find_python)
    # Debian and Ubuntu ship Python without what a virtual environment needs
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "installing python$version-venv"
        apt_install "python$version-venv" || { echo "install python$version-venv, then run this again" >&2; exit 1; }
    fi
    rm -rf .venv
    "$python" -m venv .venv
}

install() {
    make_venv
    echo "installing ooc_diffusion and what it needs into .venv (several GB the first time: torch comes with its GPU libraries)"
    .venv/bin/pip install --quiet --disable-pip-version-check -e "$1"
}

cd "$(dirname "$0")/.."
what=${1:-}
[ $# -gt 0 ] && shift
case $what in
demo)
    install .
    exec .venv/bin/ooc-diffusion demo "$@"
    ;;
tests)
    install ".[dev]"
    # without them the tests that need them are skipped, and say so
    for package in chromium strace; do
        command -v "$package" >/dev/null || apt_install "$package" || echo "without $package some tests are skipped"
    done
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    # a process per core, each with whole files, whose tests share what is made once
    exec .venv/bin/python -m pytest --numprocesses auto --dist loadfile "$@"
    ;;
install)
    install .
    ;;
*)
    usage
    ;;
esac
