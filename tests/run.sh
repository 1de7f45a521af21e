#!/bin/sh
# Installs what the tests need and runs them all. They use loopback only. With GETCRT_TESTS=all it installs
# what some tests can do without, too; else such a test is skipped where a program is not there, and says so.
set -eu
# Debian's servers are there, where not every user looks.
PATH=$PATH:/usr/sbin
cd "$(dirname "$0")/.."
. examples/lib.sh

need_build_tools
need pebble pebble
need pebble-challtestsrv pebble
need nginx nginx-light
need setpriv util-linux
need script bsdutils
need mount mount
need bash bash
need curl curl
need systemd-analyze systemd
need systemctl systemd
need python3 python3
need ip iproute2
need_file /usr/bin/time time
need_file /etc/ssl/certs/ca-certificates.crt ca-certificates
need_file "$(library libnss_wrapper.so)" libnss-wrapper
if [ "${GETCRT_TESTS:-}" = all ]; then
    need acme-tiny acme-tiny
    need apache2 apache2
    need caddy caddy
    need haproxy haproxy
    need lighttpd lighttpd
    need_file /usr/lib/lighttpd/mod_openssl.so lighttpd-mod-openssl
    need man man-db
    need zsh zsh
    need fish fish
    need musl-gcc musl-tools
    need make make
    need shellcheck shellcheck
    # Debian's smallest perl lacks what OpenSSL's own build asks for.
    perl -MFindBin -MFile::Compare -e 1 2>/dev/null || needed="$needed perl"
fi
install_needed
if [ "${GETCRT_TESTS:-}" = all ]; then
    # The static binary, before any test looks at the clock: it takes all cores for minutes.
    musl=$(uname -m)-unknown-linux-musl
    if [ -d "$(rustc --print target-libdir --target "$musl")" ] || rustup target add "$musl"; then
        cargo build --release --locked --features vendored --target "$musl" \
            --target-dir "${CARGO_TARGET_DIR:-target}/static"
    else
        say "skipped: the static binary, for rustup cannot fetch $musl"
        export GETCRT_NO_MUSL=yes
    fi
fi

# Most tests wait most of the time, so many can run at once on few cores.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-12}"
exec cargo test --locked "$@"
