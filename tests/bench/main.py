"""Measures ACME clients on the same work: names, and a directory that a web server serves, in; a
certificate chain out. The table goes to stdout, the story to stderr.
"""

import argparse
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import world
from clients import ACME_DIR, CLIENTS, PATH
from report import least_wall, table
from world import HOME, openssl

# Seconds: a run that takes longer is left out if it is not asked for, and ended if it hangs.
SLOW, HANGS = 60, 1800


@dataclass
class Run:
    """What one run took: seconds, MB and counts."""

    wall: float
    cpu: float
    memory: float = 0
    requests: int = 0
    connections: int = 0
    least: float = 0
    problem: str = None


class Bench:
    def __init__(self, options):
        self.options = options
        self.proxy = world.start_all(pathlib.Path(os.environ["GETCRT"]), options.rtt)
        self.count = 0

    def prepare(self, client):
        """Makes a directory for the client, with an account. Not measured."""
        say(f"An account for {client.name}")
        home = HOME / "accounts" / client.name
        home.mkdir(parents=True)
        shutil.copy(HOME / "account.key", home)
        for name, text in client.files.items():
            (home / name).write_text(text)
            (home / name).chmod(0o755)
        make_csr(home, [f"{client.program}.bench.test"])
        run = spawn(client.register or client.command, home)
        if run.problem:
            sys.exit(f"error: no account for {client.name}: {run.problem}")

    def measure(self, client, count, turn):
        """One run. No other run has its names, but all runs of a turn have the same validation times."""
        self.count += 1
        draw = random.Random(turn)
        waits = [draw.uniform(*self.options.validation) for _ in range(count)]
        names = [f"n{i}-{wait * 1000:.0f}ms.r{self.count}.bench.test" for i, wait in enumerate(waits)]
        home = HOME / "run"
        shutil.copytree(HOME / "accounts" / client.name, home)
        make_csr(home, names)
        self.proxy.requests = self.proxy.connections = 0
        run = spawn(client.command, home)
        run.requests, run.connections = self.proxy.requests, self.proxy.connections
        run.least = least_wall(self.options.rtt, max(waits))
        run.problem = run.problem or problem_of(home / client.chain.format(name=names[0]), names)
        shutil.rmtree(home)
        for left in pathlib.Path(ACME_DIR).iterdir():
            left.unlink()
        return run


def say(text):
    print(text, file=sys.stderr, flush=True)


def make_csr(home, names):
    alternatives = ",".join(f"DNS:{name}" for name in names)
    subject = ["-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"]
    openssl("req", "-new", "-key", "domain.key", *subject, "-out", home / "domain.csr")


def spawn(command, home):
    """Runs a command in its directory. GNU time stands between us: Linux counts what a process was
    before it became another program as memory of that one, and Python is larger than most clients."""
    words = ["time", "-q", "-f", "%M", "-o", "memory", *command.split()]
    environment = {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home)}
    with open(home / "stdout", "wb") as stdout, open(home / "stderr", "wb") as stderr:
        files = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
        started = time.monotonic()
        child = subprocess.Popen(words, cwd=home, env=environment, start_new_session=True, **files)
        watchdog = threading.Timer(HANGS, os.killpg, [child.pid, signal.SIGKILL])
        watchdog.start()
        _, status, used = os.wait4(child.pid, 0)
        run = Run(time.monotonic() - started, used.ru_utime + used.ru_stime)
        watchdog.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        said = (home / "stdout").read_text() + (home / "stderr").read_text()
        run.problem = f"exit status {child.returncode}: {said[-1000:]}"
    else:
        run.memory = int((home / "memory").read_text()) / 1024
    return run


def problem_of(chain, names):
    """What is wrong with a certificate: its names, its key, or its way to the CA's root."""
    if not chain.exists():
        return f"there is no {chain.name}"
    shown = ["openssl", "x509", "-in", chain, "-noout", "-pubkey", "-ext", "subjectAltName"]
    leaf = subprocess.run(shown, capture_output=True, text=True)
    if set(re.findall(r"DNS:([^\s,]+)", leaf.stdout)) != set(names):
        return f"the certificate is not for the names: {leaf.stdout}{leaf.stderr}"
    if openssl("pkey", "-in", "domain.key", "-pubout") not in leaf.stdout:
        return "the certificate is for another key"
    verify = ["openssl", "verify", "-CAfile", HOME / "root.pem", "-untrusted", chain, chain]
    verified = subprocess.run(verify, capture_output=True, text=True)
    return verified.stderr if verified.returncode else None


def parse_options():
    parser = argparse.ArgumentParser(prog="tests/bench.sh", description=__doc__)
    option = parser.add_argument
    option("--names", type=counts, default=[1, 10, 100], metavar="N,…",
           help="how many names a certificate has, default 1,10,100")
    option("--rtt", type=milliseconds, default=0.05, metavar="MS",
           help="round trip between client and CA, in milliseconds, default 50")
    option("--validation", type=bounds, default=(0, 0), metavar="S",
           help="seconds that the CA takes to validate a name, default 0; of a range such as 1-3 "
           "each name gets its own, the same for every client")
    option("--runs", type=int, default=3, metavar="N", help="how many runs, default 3")
    option("--clients", type=lambda text: text.split(","), metavar="CLIENT,…",
           help="which of: " + ", ".join(client.name for client in CLIENTS))
    option("--all", action="store_true",
           help=f"the slow ones too: clients for as many names as take them more than {SLOW} s")
    return parser.parse_args()


def counts(text):
    return [int(number) for number in text.split(",")]


def milliseconds(text):
    return float(text) / 1000


def bounds(text):
    numbers = [float(number) for number in text.split("-")]
    return numbers[0], numbers[-1]


def choose_clients(names):
    """Those that are asked for and there."""
    known = [client.name for client in CLIENTS]
    for name in names or []:
        if name not in known:
            sys.exit(f"error: there is no client {name}, but {', '.join(known)}")
    asked = [client for client in CLIENTS if not names or client.name in names]
    for client in asked:
        if not client.is_installed():
            say(f"not installed: {client.name} (apt-get install {client.name})")
    return [client for client in asked if client.is_installed()]


def plan_runs(options, clients):
    """The pairs of a count and a client that each round has; tells what is left out, and the time."""
    pairs, total = [], 0
    for count in options.names:
        for client in clients:
            seconds = client.pace.estimate(count, options.rtt, sum(options.validation) / 2)
            if seconds > SLOW and not options.all:
                say(f"left out without --all: {client.name} for {count} names, about {seconds:.0f} s a run")
                continue
            pairs.append((count, client))
            total += seconds * options.runs
    say(f"This takes about {total / 60 + 0.5:.1f} minutes.")
    if os.getloadavg()[0] > os.cpu_count() / 2:
        say(f"The machine is busy, its load is {os.getloadavg()[0]:.1f}: the times will be too long.")
    return pairs


def main():
    options = parse_options()
    bench = Bench(options)
    clients = choose_clients(options.clients)
    pairs = plan_runs(options, clients)
    for client in clients:
        bench.prepare(client)
    runs = {(count, client.name): [] for count in options.names for client in clients}
    # Round by round, so that what the machine does meanwhile meets all of them.
    for turn in range(options.runs):
        for count, client in pairs:
            run = bench.measure(client, count, turn)
            runs[count, client.name].append(run)
            say(f"{turn + 1}/{options.runs} {count} {client.name}: {run.problem or f'{run.wall:.2f} s'}")
    print(table(options, clients, runs))
    sys.exit(1 if any(run.problem for row in runs.values() for run in row) else 0)


main()
