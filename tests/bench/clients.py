"""The clients, each called as its manual tells, with its defaults, and how it gets its account.

Every command runs in a directory of its own, which is a copy of the one where the account was made,
with `account.key` and `domain.csr` beside. So all of them have an account before they are measured, as
they would have at a renewal, and none has seen the names before.
"""

import math
import shutil
import subprocess
from dataclasses import dataclass, field

ACME_DIR = "/dev/shm/www/.well-known/acme-challenge"
PATH = "/dev/shm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Pace:
    """About how long a client takes, in seconds and round trips; for the estimate only."""

    seconds: float
    seconds_per_name: float
    trips: float
    trips_per_name: float
    # How long it sleeps between two looks at a name; None where it waits for all names at once.
    poll: float = None

    def estimate(self, names, round_trip, validation):
        trips = self.trips + self.trips_per_name * names
        own = self.seconds + self.seconds_per_name * names + trips * round_trip
        if self.poll is None:
            return own + validation
        return own + names * math.ceil(validation / self.poll) * self.poll


@dataclass
class Client:
    name: str
    command: str
    pace: Pace
    # What makes the account: the command itself, if nothing is said.
    register: str = None
    # Where the chain is; `{name}` is the first of the names.
    chain: str = "stdout"
    files: dict = field(default_factory=dict)

    @property
    def program(self):
        return self.command.split()[0]

    def is_installed(self):
        return shutil.which(self.program, path=PATH) is not None

    def version(self):
        if self.program == "getcrt":
            return output("getcrt", "--version").split()[-1]
        return output("dpkg-query", "-W", "-f", "${Version}", self.name) or "of unknown version"


def output(*command):
    try:
        done = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


TINY = f"""--account-key account.key --csr domain.csr --acme-dir {ACME_DIR}
    --directory-url https://localhost/dir"""
CERTBOT = "--config-dir conf --work-dir work --logs-dir log --server https://localhost/dir -n --agree-tos"

CLIENTS = [
    Client("getcrt", f"getcrt {TINY}", Pace(0.1, 0.01, 13, 0.25)),
    Client("getcrt --disable-check", f"getcrt --disable-check {TINY}", Pace(0.1, 0.01, 13, 0.25)),
    Client("acme-tiny", f"acme-tiny {TINY}", Pace(0.4, 0.17, 33, 18, 2)),
    Client(
        "uacme",
        "uacme -c conf -a https://localhost/dir -h ./hook issue domain.csr",
        Pace(0.2, 0.12, 24, 8, 5),
        register="uacme -c conf -a https://localhost/dir -y new",
        chain="domain-cert.pem",
        files={
            "hook": f"""#!/bin/sh
[ "$2" = http-01 ] || exit 1
case $1 in
begin) printf %s "$5" >{ACME_DIR}/"$4" ;;
*) rm -f {ACME_DIR}/"$4" ;;
esac
"""
        },
    ),
    Client(
        "lego",
        "lego --path . --server https://localhost/dir --email bench@example.com --accept-tos"
        " --key-type rsa2048 --http --http.webroot /dev/shm/www --csr domain.csr run",
        Pace(0.1, 0.01, 8, 3.2, 5),
        chain="certificates/{name}.crt",
    ),
    Client(
        "certbot",
        f"certbot certonly {CERTBOT} --webroot -w /dev/shm/www --csr domain.csr"
        " --cert-path leaf.pem --chain-path issuers.pem --fullchain-path chain.pem",
        Pace(2.5, 0.01, 9, 3.1),
        register=f"certbot register {CERTBOT} -m bench@example.com --no-eff-email",
        chain="chain.pem",
    ),
    Client(
        "dehydrated",
        "dehydrated -f ./config --signcsr domain.csr",
        Pace(3.6, 2, 28, 15, 1),
        register="dehydrated -f ./config --register --accept-terms",
        files={
            "config": f"""CA=https://localhost/dir
BASEDIR=$HOME
WELLKNOWN={ACME_DIR}
CHALLENGETYPE=http-01
ACCOUNT_KEYSIZE=2048
CONTACT_EMAIL=bench@example.com
"""
        },
    ),
]
