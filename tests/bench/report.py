"""The table: medians of the runs, beside the least that any client can need."""

import datetime
import os
import pathlib
import platform
import re
import shlex
import statistics
import sys

HEAD = """\
| names | client | wall, s | × the least | × getcrt | CPU, s | memory, MB | requests | TLS connections |
|--:|:--|--:|--:|--:|--:|--:|--:|--:|"""
FORMATS = ["{:.2f}", "{:.1f}", "{:.1f}", "{:.2f}", "{:.0f}", "{:.0f}", "{:.0f}"]


def least_wall(round_trip, slowest):
    """For a client without any state, with all names side by side: TCP, TLS, directory, nonce,
    account, order, authorizations, challenges, finalize and certificate wait for each other, a
    round trip each; then there are the looks that find the names and the certificate ready."""
    return 10 * round_trip + max(round_trip, slowest) + round_trip


def least_requests(names):
    """Two for each name; directory, nonce, account, order, two looks at it, finalize, certificate."""
    return 2 * names + 8


def table(options, clients, runs):
    lines = [machine(clients), "", setting(options), "", HEAD]
    for count in options.names:
        all_runs = [run for client in clients for run in runs[count, client.name]]
        least = median(run.least for run in all_runs)
        cells = [least, None, None, None, None, least_requests(count), 1]
        lines.append(row(count, "*the least possible*", cells))
        for client in clients:
            mine, base = runs[count, client.name], runs.get((count, "getcrt"), [])
            failed = sum(1 for run in mine if run.problem)
            name = f"{client.name} ({failed} of {len(mine)} failed)" if failed else client.name
            lines.append(row(count, name, medians(mine, base)))
    return "\n".join(lines)


def medians(runs, base):
    """The cells of a row. Each run is compared with that of `base` in the same round."""
    good = [run for run in runs if not run.problem]
    pairs = [(run, other) for run, other in zip(runs, base) if not run.problem and not other.problem]
    return [
        median(run.wall for run in good),
        median(run.wall / run.least for run in good if run.least),
        median(run.wall / other.wall for run, other in pairs),
        median(run.cpu for run in good),
        median(run.memory for run in good),
        median(run.requests for run in good),
        median(run.connections for run in good),
    ]


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


def row(count, name, cells):
    shown = ["-" if cell is None else form.format(cell) for form, cell in zip(FORMATS, cells)]
    return f"| {count} | {name} | {' | '.join(shown)} |"


def machine(clients):
    """The day, the machine and the versions."""
    models = re.findall(r"^model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    system = re.search(r'PRETTY_NAME="?([^"\n]*)', pathlib.Path("/etc/os-release").read_text())
    facts = [
        str(datetime.date.today()),
        models[0] if models else platform.machine(),
        f"{os.cpu_count()} cores",
        f"Linux {platform.release()}",
        system[1] if system else "",
    ]
    versions = [f"{client.name} {client.version()}" for client in clients if client.name == client.program]
    return f"{', '.join(facts)}; {', '.join(versions)}."


def setting(options):
    """What was measured, and how to do it again."""
    validation = "-".join(f"{bound:g}" for bound in sorted(set(options.validation)))
    return (
        f"Medians of {options.runs}, round trip {options.rtt * 1000:g} ms, validation of a name "
        f"{validation} s, by `{shlex.join(['sh', 'tests/bench.sh', *sys.argv[1:]])}`:"
    )
