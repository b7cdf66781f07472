"""Checks of the machine itself: memory, disk, limits, and the way to a master."""

import re
import resource
import shutil
import socket

from ascend.doctor.check import BROKEN, NOT_NEEDED, OK, Finding, Places

GIB = 2**30
MEMORY = 4 * GIB  # the demo takes 3.5 GB
DISK = 2 * GIB
OPEN_FILES = 1024
PROCESSES = 4096
PORT = 8118  # msrun's
SECONDS = 5  # that a master may take to answer


def check_memory(places: Places) -> Finding:
    told = re.search(r"MemAvailable:\s+(\d+) kB", places.meminfo.read_text())
    if told is None:
        return Finding(BROKEN, f"{places.meminfo} does not tell", "free -g")
    remedy = "end what takes memory: ps aux --sort=-rss | head"
    return _check_room(int(told[1]) * 1024, MEMORY, "available", remedy)


def check_disk(places: Places) -> Finding:
    remedy = "remove what is not needed: du -xh --max-depth=2 . | sort -h | tail"
    return _check_room(shutil.disk_usage(places.work).free, DISK, "free", remedy)


def _check_room(there: int, least: int, what: str, remedy: str) -> Finding:
    found = f"{there / GIB:.1f} GiB {what}"
    if there >= least:
        return Finding(OK, found)
    return Finding(BROKEN, f"{found}, less than {least / GIB:.0f}", remedy)


def check_open_files(places: Places) -> Finding:
    return _check_limit(resource.RLIMIT_NOFILE, OPEN_FILES, "ulimit -n 65535")


def check_processes(places: Places) -> Finding:
    return _check_limit(resource.RLIMIT_NPROC, PROCESSES, "ulimit -u unlimited")


def _check_limit(limit: int, least: int, remedy: str) -> Finding:
    there = resource.getrlimit(limit)[0]
    if there == resource.RLIM_INFINITY:
        return Finding(OK, "unlimited")
    if there >= least:
        return Finding(OK, str(there))
    return Finding(BROKEN, f"{there}, less than {least}", remedy)


def check_master(master: str | None) -> Finding:
    """Whether the machine that starts a cluster can be reached.

    Before it starts nobody listens there: a refused connection shows that the way is open.

    Args:
        master: HOST or HOST:PORT.
    """
    if master is None:
        return Finding(NOT_NEEDED, "no master was given")
    host, _, port = master.partition(":")
    if not host or not re.fullmatch(r"\d{1,5}|", port) or int(port or PORT) > 65535:
        return Finding(BROKEN, f"{master!r} is not HOST or HOST:PORT", "--master 10.0.0.1:8118")
    port = int(port or PORT)
    try:
        # MindSpore's clusters are IPv4 only
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    except (OSError, UnicodeError):
        return Finding(BROKEN, f"{host} has no IPv4 address", f"getent ahostsv4 {host}")
    try:
        socket.create_connection(address, SECONDS).close()
    except ConnectionRefusedError:
        return Finding(OK, f"{host} is there; nobody listens at {port} yet")
    except OSError as error:
        remedy = f"open port {port} on {host}, for example: firewall-cmd --add-port={port}/tcp"
        return Finding(BROKEN, f"{host}:{port} cannot be reached: {error}", remedy)
    return Finding(OK, f"{host}:{port} answers")


CHECKS = {
    "memory": check_memory,
    "disk": check_disk,
    "open files": check_open_files,
    "processes": check_processes,
}
