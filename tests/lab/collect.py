"""Runs on a machine as root: prints its state as JSON, normalised for comparison."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Found = dict[str, str]

FOLDERS = ("/etc", "/home", "/mnt", "/opt", "/root", "/srv", "/usr/local", "/var/lib/rig", "/var/spool/cron")
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")

# Differences between two machines, or two moments of one, that no deploy causes.
BY_NATURE = {
    "/etc/.pwd.lock": "made by whoever changed an account first",
    "/etc/machine-id": "every machine has its own",
    "/etc/mtab": "leads to the mounts of whoever looks",
    "/etc/group-": "the account files of the day before, as useradd keeps them",
    "/etc/gshadow-": "the same",
    "/etc/passwd-": "the same",
    "/etc/shadow-": "the same",
    "/etc/subgid-": "the same",
    "/etc/subuid-": "the same",
    "/etc/ssh/ssh_host_ed25519_key": "every lab has its own",
    "/etc/ssh/ssh_host_ed25519_key.pub": "every lab has its own",
    "/home/rig/.ssh/authorized_keys": "every lab has its own",
    "/etc/.updated": "systemd's note of when /usr last changed, which it does not sync",
    "/etc/ld.so.cache": "rebuilt by package scripts, in the order of the disk",
    "/var/lib/rig/models/fetch.json": "how long the last fetch took",
}
BACKUPS = re.compile(r"/mnt/backup/.+|/var/lib/rig/backup(/.*)?")
"""Time at which cron last found a backup due."""
KEYS = re.compile(r"/etc/rig/(backup-password|keys\.env|keys/.*|prometheus-keys/.*|gateway/engines\.map)")
ACCOUNTS = re.compile(r"/etc/(passwd|shadow|group|gshadow)")
COMPILED = re.compile(r"/opt/rig/rigd/.*\.pyc")
"""Python writes the source's time into them."""
RECORD = re.compile(r"/var/lib/rig/models/.*\.verified")

# Started on demand, by a timer or only at the first boot, and finished by themselves.
PASSING = re.compile(
    r"(apt-daily|apt-daily-upgrade|dpkg-db-backup|e2scrub_reap|e2scrub_all|logrotate|fstrim|man-db|motd-news"
    r"|systemd-(hostnamed|timedated|localed|logind-varlink|tmpfiles-clean|userdbd|machined)"
    r"|rig-metrics|ldconfig|systemd-(journal-catalog-update|sysusers|update-done|machine-id-commit|firstboot-complete)"
    r"|user@\d+|user-runtime-dir@\d+|systemd-(coredump|hostnamed|bsod|creds|mute-console|pcr\w+)[@.].*"
    r"|ssh@.*|sshd@.*)\.(service|timer|socket)"
)

# compose's own notes: a hash that covers the key, and the replaced container.
COMPOSES_OWN = ("com.docker.compose.config-hash", "com.docker.compose.replace")

# Values that the kernel or time changes; those of interfaces, which Docker names at random.
RESTLESS = re.compile(
    r"net\.(ipv[46]\.(conf|neigh)\..*|netfilter\.nf_conntrack_(count|buckets|max)|.*tcp_fastopen_key|nf_conntrack_max"
    r"|ipv4\.tcp_mem|ipv4\.udp_mem|ipv4\.tcp_max_orphans|.*_mem)"
)


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def packages() -> Found:
    """Every package with version, state and mark: manual or automatic."""
    form = "${Package}:${Architecture}\t${Version} ${db:Status-Abbrev}\n"
    rows = (line.split("\t") for line in output("dpkg-query", "-W", "-f", form).splitlines())
    found = {f"package {name}": state.strip() for name, state in rows}
    return found | {f"asked for {name}": "yes" for name in output("apt-mark", "showmanual").split()}


def files(normal: Callable[[bytes], bytes]) -> Iterator[tuple[str, str]]:
    """Every file of the folders: kind, mode, owner and content."""
    for folder in FOLDERS:
        for path in (Path(folder), *sorted(Path(folder).rglob("*"))):
            if not (str(path) in BY_NATURE or COMPILED.fullmatch(str(path)) or BACKUPS.fullmatch(str(path))):
                yield f"file {path}", _file(path, normal)


def _file(path: Path, normal: Callable[[bytes], bytes]) -> str:
    status = path.lstat()
    owner = f"{_name(pwd.getpwuid, status.st_uid)}:{_name(grp.getgrgid, status.st_gid)}"
    who = f"{stat.filemode(status.st_mode)} {owner}"
    if stat.S_ISLNK(status.st_mode):
        return f"{who} -> {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return who
    content = path.read_bytes()
    if KEYS.fullmatch(str(path)):
        return f"{who} {_key_names(content)}"
    if RECORD.fullmatch(str(path)):
        verified = json.loads(content)["files"]
        return f"{who} {' '.join(verified[name]['sha256'] for name in sorted(verified))}"
    if str(path) == "/etc/shadow":
        # The third field is the day of the last change.
        content = re.sub(rb"(?m)^([^:]*:[^:]*:)\d*", rb"\1", content)
    if ACCOUNTS.fullmatch(str(path)):
        # Accounts of packages get the next number, in the order in which dpkg configures packages. Files are compared
        # by their owners' names.
        content = b"\n".join(sorted(re.sub(rb":[1-9]\d\d\b", b":system", content).splitlines()))
    return f"{who} {hashlib.sha256(normal(content)).hexdigest()[:16]}"


def _name(of: Callable[[int], tuple[object, ...]], number: int) -> str:
    try:
        return str(of(number)[0])
    except KeyError:
        return str(number)


def _key_names(content: bytes) -> str:
    """The names and lengths of the keys: never a key."""
    rows = (line.rpartition(b"=") for line in content.split(b"\n") if not line.startswith(b"#"))
    # Sorted, because a rotated key moves to the end.
    return " ".join(sorted(f"{name.decode()}:{len(key)}" for name, _, key in rows))


def leftovers() -> Found:
    """Temporary files that should have been removed."""
    found: Found = {}
    for folder in (*TEMPORARY, "/run/lock"):
        for at, folders, names in os.walk(folder):
            # Running services have folders of their own here.
            folders[:] = [name for name in folders if not name.startswith("systemd-private-")]
            # A container's health check, while it runs.
            found |= {f"temporary {at}/{name}": "there" for name in names if not name.startswith("runc-process")}
    return found


def units() -> Found:
    """Units that start at boot, and units that are active now."""
    found = {}
    for line in output("systemctl", "list-unit-files", "--no-legend", "--plain", "--no-pager").splitlines():
        name, state = line.split()[:2]
        if state in ("enabled", "masked", "enabled-runtime", "linked"):
            found[f"unit file {name}"] = state
    listed = output(
        "systemctl", "list-units", "--type=service,socket,timer,path,mount", "--no-legend", "--plain", "--all"
    )
    for line in listed.splitlines():
        name, _, active, sub = line.split()[:4]
        passing = PASSING.fullmatch(name) or name.startswith(
            ("var-lib-docker-", "run-", "var-lib-containerd")
        )
        if active != "inactive" and (active == "failed" or not passing):
            found[f"unit {name}"] = f"{active} {sub}"
    for name in [name.removeprefix("unit ") for name in found if name.startswith("unit rig-")]:
        if output("systemctl", "show", "--property=NeedDaemonReload", "--value", name) != "no\n":
            found[f"unit {name}"] += " older than its file"
    return found


def containers(normal: Callable[[bytes], bytes]) -> Found:
    """Containers, images, networks and volumes of the container engine."""
    if subprocess.run(["systemctl", "is-active", "--quiet", "docker.service"]).returncode != 0:
        return {"container engine": "not running"}
    found = {}
    for name in output("docker", "ps", "--all", "--format", "{{.Names}}").split():
        shown = json.loads(output("docker", "inspect", name))[0]
        labels = shown["Config"]["Labels"]
        current = labels.get("rig.settings")
        value = {
            "state": shown["State"]["Status"],
            "health": shown["State"].get("Health", {}).get("Status"),
            "current": current is not None and current in Path("/etc/rig/compose.yaml").read_text(),
            "image": shown["Config"]["Image"],
            "command": shown["Config"]["Cmd"],
            "labels": {key: text for key, text in labels.items() if key not in COMPOSES_OWN},
            "mounts": sorted(
                [m["Type"], m.get("Source", ""), m["Destination"], str(m["RW"])] for m in shown["Mounts"]
            ),
            "ports": shown["HostConfig"]["PortBindings"],
            # Not how often Docker restarted it: until a run brings an engine's model back after a power cut, it ends at
            # each start, and then serves without being made again.
            "restarts": shown["HostConfig"]["RestartPolicy"],
        }
        found[f"container {name}"] = normal(json.dumps(value, sort_keys=True).encode()).decode()
    for kind, form in {
        "image": "{{.Repository}} {{.Tag}} {{.Digest}}",
        "network": "{{.Name}} {{.Driver}}",
        "volume": "{{.Name}} {{.Driver}}",
    }.items():
        digests = ["--digests"] if kind == "image" else []
        for line in output("docker", kind, "ls", *digests, "--format", form).splitlines():
            found[f"{kind} {normal(line.encode()).decode()}"] = "there"
    return found


def packet_filter(normal: Callable[[bytes], bytes]) -> Found:
    """Our table word for word, and the names of all others."""
    tables = output("nft", "list", "tables").splitlines()
    found = {name: "there" for name in tables}
    if "table inet rig" in tables:
        found["table inet rig"] = normal(output("nft", "list", "table", "inet", "rig").encode()).decode()
    return found


def parameters() -> Found:
    """The kernel parameters that a machine in the lab has for itself."""
    rows = (line.partition(" = ") for line in output("sysctl", "-a", "--pattern", "^net\\.").splitlines())
    return {f"parameter {name}": value for name, _, value in rows if not RESTLESS.fullmatch(name)}


def secrets() -> Found:
    """Fingerprints of random keys, which reveal nothing of them: constant on one machine."""
    found = {}
    for line in (
        Path("/etc/rig/keys.env").read_bytes().splitlines() if Path("/etc/rig/keys.env").exists() else []
    ):
        name, _, key = line.partition(b"=")
        if key:
            found[name.decode()] = hashlib.sha256(b"rig" + key).hexdigest()[:16]
    return found


def lives() -> Found:
    """Every lasting service and container, with a value that changes at each start."""
    shown = output(
        "systemctl", "show", "--property=Id,InvocationID,MainPID,UnitFileState,ActiveState", "*.service"
    )
    found = {}
    for block in shown.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines())
        lasting = values["UnitFileState"] == "enabled" or values["Id"] == "systemd-journald.service"
        if values["ActiveState"] == "active" and lasting:
            found[values["Id"]] = f"{values['InvocationID']} {values['MainPID']}"
    if "docker.service" in found:
        for name in output("docker", "ps", "--format", "{{.Names}}").split():
            found[f"container {name}"] = output(
                "docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name
            )
    return found


def state(subnet: str) -> Found:
    """The state that two machines with the same settings share. ``subnet``: such as ``10.77.3.``"""

    def normal(content: bytes) -> bytes:
        """Remove the address that the lab happened to get."""
        return content.replace(subnet.encode(), b"SUBNET.")

    return {
        **packages(),
        **dict(files(normal)),
        **leftovers(),
        **units(),
        **containers(normal),
        **packet_filter(normal),
        **parameters(),
    }


if __name__ == "__main__":
    asked = {"state": lambda: state(sys.argv[1]), "secrets": secrets, "lives": lives}
    print(json.dumps({name: asked[name]() for name in sys.argv[2:]}))
