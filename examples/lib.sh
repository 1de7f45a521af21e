# Shell functions of examples/quickstart.sh, tests/run.sh and tests/bench.sh: what is missing, and installing it.
# shellcheck shell=sh

needed=

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
show() { printf '$'; printf ' %s' "$@"; printf '\n'; }
run() { show "$@"; "$@"; }

# need COMMAND PACKAGE: Debian's PACKAGE is needed where there is no COMMAND.
need() {
    command -v "$1" >/dev/null || needed="$needed $2"
}

# need_file FILE PACKAGE: the same for a file.
need_file() {
    [ -e "$1" ] || needed="$needed $2"
}

# What cargo needs beside Rust, and the openssl command.
need_build_tools() {
    need cc gcc
    need pkg-config pkg-config
    need openssl openssl
    pkg-config --exists openssl 2>/dev/null || needed="$needed libssl-dev"
    # gcc alone, without recommended packages, has no C library to link with.
    need_file "$(library crt1.o)" libc6-dev
}

# library NAME: where a shared library of Debian's is.
library() {
    for found in /usr/lib/*/"$1" /usr/lib/"$1" /usr/lib64/"$1"; do
        [ ! -e "$found" ] || { printf '%s\n' "$found"; return; }
    done
    printf '%s\n' "$1"
}

# Installs what is needed. Debian starts the servers it installs; a policy forbids that meanwhile.
install_needed() {
    command -v cargo >/dev/null || fail "there is no cargo: install a Rust toolchain first (https://rustup.rs)"
    [ -n "$needed" ] || return 0
    # shellcheck disable=SC2086 # these are words
    needed=$(printf '%s\n' $needed | sort -u | tr '\n' ' ')
    command -v apt-get >/dev/null ||
        fail "these are missing, by their names in Debian; please install them by your system's own means: $needed"
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            fail "these are missing, and without sudo only root can install them: apt-get install $needed"
        sudo=sudo
    fi
    say "Installing with apt-get: $needed"
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        ours=yes
        # If it stayed, this machine would start no server it installs.
        trap '$sudo rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
    fi
    status=0
    # shellcheck disable=SC2086 # these are words
    { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $needed; } || status=$?
    if [ -n "$ours" ]; then
        $sudo rm -f "$policy"
        trap - EXIT INT TERM HUP
    fi
    [ $status = 0 ] || fail "apt-get could not install them"
}

# fetch_root PORT BUNDLE: the root certificate of the Pebble whose management port is PORT.
fetch_root() {
    printf 'GET /roots/0 HTTP/1.0\r\nHost: localhost\r\n\r\n' |
        openssl s_client -quiet -connect "127.0.0.1:$1" -CAfile "$2" -verify_return_error 2>/dev/null |
        sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p'
}
