#!/bin/sh
# Renews the certificate if it is due, and reloads the web server if it was renewed. Run it as often as
# you like, for example by cron; what you add on the command line is handed on to getcrt.
set -u

certificate=/etc/getcrt/tls/domain.crt
reload() {
    systemctl reload nginx.service
}

getcrt --renew --quiet --account-key /etc/getcrt/account.key --csr /etc/getcrt/domain.csr \
    --acme-dir /var/www/acme-challenge --output "$certificate" "$@"
status=$?
case $status in
0) reload ;;
3) ;; # not due, and nothing is said of it
*) exit $status ;;
esac
