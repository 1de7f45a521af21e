"""The surroundings of every client: a CA, its DNS server, a web server, and a system that finds and
trusts them. All of it is this process tree's own, and ends with it.
"""

import http.client
import multiprocessing
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import time

import web
from clients import ACME_DIR
from proxy import Proxy

# Memory that nobody else sees.
HOME = pathlib.Path("/dev/shm")
# The proxy has https's own port; the others are the counter behind it, and Pebble.
PORTS = [443, 14001, 14000]
MANAGEMENT_PORT = 15000


def openssl(*arguments):
    """openssl's stdout."""
    return run(["openssl", *arguments]).stdout


def run(command):
    """Runs a command that must not fail."""
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done


def start_all(getcrt, round_trip):
    """Makes all of it, and returns the proxy between the clients and the CA."""
    binary = getcrt.read_bytes()
    run(["ip", "link", "set", "lo", "up"])
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", HOME])
    pathlib.Path(ACME_DIR).mkdir(parents=True)
    (HOME / "bin").mkdir()
    (HOME / "bin/getcrt").write_bytes(binary)
    (HOME / "bin/getcrt").chmod(0o755)
    openssl("genrsa", "-traditional", "-out", "account.key", "2048")
    for key in ["domain.key", "ca.key", "server.key"]:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    make_trusted_server()
    make_names_lead_here()
    start_pebble()
    servers = multiprocessing.get_context("fork")
    servers.Process(target=web.serve, args=(80, HOME / "www"), daemon=True).start()
    await_port(80)
    proxy = Proxy(round_trip, PORTS, HOME)
    proxy.start()
    return proxy


def make_trusted_server():
    """A certificate for localhost, whose root is one more in the system's store."""
    openssl("req", "-x509", "-key", "ca.key", "-subj", "/CN=bench root", "-days", "2", "-out", "ca.pem")
    openssl("req", "-new", "-key", "server.key", "-subj", "/CN=localhost", "-out", "server.csr")
    (HOME / "names").write_text("subjectAltName=DNS:localhost\n")
    signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "server.csr", *signed_by, "-days", "2", "-out", "server.pem")
    shutil.copytree("/etc/ssl/certs", HOME / "certs", symlinks=True)
    root = (HOME / "ca.pem").read_text()
    digest = openssl("x509", "-in", "ca.pem", "-noout", "-hash").strip()
    (HOME / f"certs/{digest}.0").write_text(root)
    bundle = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    (HOME / "certs/ca-certificates.crt").unlink()
    (HOME / "certs/ca-certificates.crt").write_text(bundle + root)
    run(["mount", "--bind", HOME / "certs", "/etc/ssl/certs"])


def make_names_lead_here():
    """Every name is 127.0.0.1, for Pebble and for the clients, whatever this system asks usually."""
    for name, text in {
        "hosts": "127.0.0.1 localhost\n",
        "resolv.conf": "nameserver 127.0.0.1\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }.items():
        (HOME / name).write_text(text)
        run(["mount", "--bind", HOME / name, f"/etc/{name}"])


def start_pebble():
    """The CA and its DNS server; a validation takes as long as the web server lets it wait."""
    (HOME / "pebble.json").write_text(
        f"""{{"pebble": {{"listenAddress": "127.0.0.1:{PORTS[-1]}", "httpPort": 80, "tlsPort": 1,
        "managementListenAddress": "127.0.0.1:{MANAGEMENT_PORT}",
        "certificate": "server.pem", "privateKey": "server.key"}}}}"""
    )
    start("pebble-challtestsrv -defaultIPv6= -http01= -https01= -tlsalpn01= -dns01=127.0.0.1:53")
    start(
        "pebble -config pebble.json -dnsserver 127.0.0.1:53",
        # With more threads than one it can hang for good: it locks an order for reading twice in one request.
        GOMAXPROCS="1",
        PEBBLE_VA_NOSLEEP="1", PEBBLE_AUTHZREUSE="0", PEBBLE_WFE_NONCEREJECT="0",
    )
    await_port(PORTS[-1])
    await_port(MANAGEMENT_PORT)
    tls = ssl.create_default_context(cafile=HOME / "ca.pem")
    management = http.client.HTTPSConnection("localhost", MANAGEMENT_PORT, context=tls)
    management.request("GET", "/roots/0")
    (HOME / "root.pem").write_bytes(management.getresponse().read())


def start(command, **environment):
    """A server, which ends with the namespace."""
    words = command.split()
    with open(HOME / f"{words[0]}.log", "wb") as log:
        files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        subprocess.Popen(words, cwd=HOME, env={**os.environ, **environment}, **files)


def await_port(port):
    """Waits until a server takes connections there."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    logs = "".join(path.read_text() for path in HOME.glob("*.log"))
    sys.exit(f"error: no server came up at port {port}: {logs}")
