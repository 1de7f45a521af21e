#!/bin/sh
# A real certificate on your own machine, in one command: builds getcrt, starts a CA (Pebble, Let's
# Encrypt's small test server), its DNS server and a web server on loopback, and lets getcrt fetch a
# certificate for two names. Nothing outside this machine is asked, nothing of yours is changed
# beyond the packages that it says it installs.
set -eu
cd "$(dirname "$0")/.."
. examples/lib.sh

need_build_tools
need pebble pebble
need pebble-challtestsrv pebble
need busybox busybox
need_file "$(library libnss_wrapper.so)" libnss-wrapper
install_needed

say "Building getcrt"
cargo build --release --locked
getcrt=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)/getcrt

work=$(mktemp -d)
servers=
clean_up() {
    for server in $servers; do kill "$server" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cd "$work"

# listens PORT: whether a server on this machine takes connections there.
listens() { grep -q ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6; }

# Every server gets ports that nobody listens on.
port=$((20000 + $$ % 20000))
free_port() {
    while port=$((port + 1)); listens $port; do :; done
}
free_port; acme=$port
free_port; management=$port
free_port; dns=$port
free_port; dns_management=$port
free_port; http=$port

say "Starting a CA, its DNS server and a web server on loopback"
# Pebble speaks https with a certificate of ours, whose root getcrt is told to trust.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=quickstart root" \
    -keyout ca.key -out ca.pem 2>openssl.log
openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout pebble.key -out pebble.csr 2>>openssl.log
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >pebble.ext
openssl x509 -req -in pebble.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile pebble.ext \
    -out pebble.pem 2>>openssl.log
cat >pebble.json <<END
{"pebble": {
    "listenAddress": "127.0.0.1:$acme", "managementListenAddress": "127.0.0.1:$management",
    "certificate": "pebble.pem", "privateKey": "pebble.key", "httpPort": $http, "tlsPort": 1
}}
END
pebble-challtestsrv -defaultIPv6 "" -dns01 "127.0.0.1:$dns" -http01 "" -https01 "" -tlsalpn01 "" \
    -management "127.0.0.1:$dns_management" >dns.log 2>&1 &
servers=$!
# With more threads than one Pebble can hang for good.
GOMAXPROCS=1 PEBBLE_VA_SLEEPTIME=3 pebble -config pebble.json -strict -dnsserver "127.0.0.1:$dns" >pebble.log 2>&1 &
servers="$servers $!"
mkdir -p www/.well-known/acme-challenge
busybox httpd -f -p "127.0.0.1:$http" -h www &
servers="$servers $!"
for server in $acme $management $dns_management $http; do
    tries=0
    until listens "$server"; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { cat ./*.log >&2; fail "a server did not start at port $server"; }
        sleep 0.1
    done
done
# This machine must reach the names too, so that getcrt's own look at the files is a real one.
printf '127.0.0.1 example.test\n127.0.0.1 www.example.test\n' >hosts

say "Making an account key, a key for the certificate, and a CSR for two names"
run openssl ecparam -genkey -name prime256v1 -noout -out account.key
run openssl ecparam -genkey -name prime256v1 -noout -out domain.key
run openssl req -new -key domain.key -subj / \
    -addext subjectAltName=DNS:example.test,DNS:www.example.test -out domain.csr

say "Fetching the certificate"
on_these_names() {
    LD_PRELOAD=$(library libnss_wrapper.so) NSS_WRAPPER_HOSTS=$work/hosts "$@"
}
show getcrt --account-key account.key --csr domain.csr --acme-dir www/.well-known/acme-challenge/ \
    --directory-url "https://localhost:$acme/dir" --ca-bundle ca.pem --check-port "$http" ">" signed.crt
on_these_names "$getcrt" --account-key account.key --csr domain.csr --acme-dir www/.well-known/acme-challenge/ \
    --directory-url "https://localhost:$acme/dir" --ca-bundle ca.pem --check-port "$http" >signed.crt

say "The certificate"
run openssl x509 -in signed.crt -noout -subject -issuer -dates -ext subjectAltName

say "Does it lead to the CA's root, and is the acme-dir clean?"
fetch_root "$management" ca.pem >root.pem
run openssl verify -CAfile root.pem -untrusted signed.crt signed.crt
[ -z "$(ls -A www/.well-known/acme-challenge)" ] || fail "challenge files were left behind"
say "Done: the certificate is real, and so was everything that happened."
