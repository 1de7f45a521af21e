#!/bin/sh
# Measures getcrt beside the other ACME clients of this machine, against a real CA (Pebble) behind a
# simulated network, and prints a table. `--help` tells the options; GETCRT=FILE is a getcrt to
# measure in the place of the one that is built here.
#
# All of it runs in namespaces of its own: the ports, /etc/hosts, the trust store and the working
# directory are those of this process tree only, and end with it, however it ends.
set -eu
cd "$(dirname "$0")/.."
. examples/lib.sh

case " $* " in
*" -h "* | *" --help "*) exec python3 -B tests/bench/main.py --help ;;
esac

need_build_tools
need python3 python3
need pebble pebble
need pebble-challtestsrv pebble
need ip iproute2
need mount mount
need unshare util-linux
need setpriv util-linux
need_file /usr/bin/time time
need_file /etc/ssl/certs/ca-certificates.crt ca-certificates
install_needed >&2

if [ -z "${GETCRT:-}" ]; then
    say "Building getcrt" >&2
    cargo build --release --locked >&2
    GETCRT=${CARGO_TARGET_DIR:-target}/release/getcrt
fi
GETCRT=$(realpath "$GETCRT")
export GETCRT

namespaces="unshare --mount --net --pid --fork --kill-child"
[ "$(id -u)" = 0 ] || namespaces="$namespaces --map-root-user"
$namespaces mount -t tmpfs none /dev/shm ||
    fail "this needs namespaces of its own for mounts, network and processes, and may not have them.
Run it as root; or let every user have them (sysctl -w kernel.unprivileged_userns_clone=1 or
kernel.apparmor_restrict_unprivileged_userns=0); a container needs the capability SYS_ADMIN."

# Killed, this shell takes its child along, and that one all processes of the namespace.
# shellcheck disable=SC2086 # these are words
setpriv --pdeathsig KILL $namespaces python3 -B tests/bench/main.py "$@" &
bench=$!
trap 'kill -KILL $bench 2>/dev/null && wait $bench 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
wait $bench
