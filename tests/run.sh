#!/bin/sh
# Installs what the tests need and runs them all. They use loopback only.
set -eu
cd "$(dirname "$0")/.."
. examples/lib.sh

need_build_tools
need pebble pebble
need pebble-challtestsrv pebble
need nginx nginx-light
need setpriv util-linux
need mount mount
need bash bash
need systemd-analyze systemd
need systemctl systemd
need_file "$(library libnss_wrapper.so)" libnss-wrapper
install_needed

exec cargo test --locked "$@"
