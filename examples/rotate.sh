#!/bin/sh
# Like renew.sh, but with a new key for each certificate: if the certificate is due, this makes a key and a CSR, gets the
# certificate, puts all three in place, and reloads the web server. If anything fails, the old ones stay. Run it as
# root and as often as you like, for example by cron; what you add on the command line is handed on to getcrt.
set -eu

names=DNS:example.org,DNS:www.example.org
key=/etc/getcrt/domain.key
csr=/etc/getcrt/domain.csr
certificate=/etc/getcrt/tls/domain.crt
reload() {
    systemctl reload nginx.service
}

get() {
    getcrt --quiet --account-key /etc/getcrt/account.key --acme-dir /var/www/acme-challenge "$@"
}

# Without a CSR there is no certificate yet.
if [ -e "$csr" ]; then
    status=0
    get --is-due --csr "$csr" --output "$certificate" "$@" || status=$?
    case $status in
    0) ;;
    3) exit 0 ;; # not due, and nothing is said of it
    *) exit $status ;;
    esac
fi

# Only root may read the key.
(umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$key.new")
openssl req -new -key "$key.new" -subj / -addext "subjectAltName=$names" -out "$csr.new"

# With the old certificate at --output, getcrt tells the CA which one is replaced. Let's Encrypt has no rate limits then.
rm -f "$certificate.new"
if [ -e "$certificate" ]; then
    cp "$certificate" "$certificate.new"
fi
get --renew --csr "$csr.new" --output "$certificate.new" "$@"

mv "$key.new" "$key"
mv "$csr.new" "$csr"
mv "$certificate.new" "$certificate"
reload
