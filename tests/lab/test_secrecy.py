"""Nobody without a need for a key sees it: not in transit, not afterwards, not on the operator's side."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from lab.machine import CHECKOUT, NAME, Lab, program
from tests.lab.conftest import Machines

KEYS = "/etc/rig/keys.env"
PASSWORD = "/etc/rig/backup-password"
LARGEST = 64 << 20
"""Bytes beyond which a file of the operator's is no trace of a run: disks of labs, which do hold the keys."""

TALKATIVE = ("-y", "-vvv", "--diff", "--debug")

# The files that hold keys because a service needs them there; each must be closed to everybody else.
RIGHTFUL = (
    r"/etc/rig/keys\.env",
    r"/etc/rig/backup-password",
    r"/etc/rig/keys/llama-8b",
    r"/etc/rig/prometheus-keys/llama-(70b|8b)",
    r"/etc/rig/gateway/engines\.map",
    r"/var/lib/docker/containers/[0-9a-f]{64}/config\.v2\.json",
    r"/var/lib/containerd/io\.containerd\.metadata\.v1\.bolt/meta\.db",
    r"/run/containerd/io\.containerd\.runtime\.v2\.task/moby/[0-9a-f]{64}/config\.json",
    r"/run/credentials/rig-native@llama-8b\.service/key",
    # runc's input at the start of a health check: it contains a container's environment for a moment.
    r"/tmp/runc-process[0-9]+",
)

# Prints the keys, one a line; through pipes only, so that the search for them does not show them.
PRINT_KEYS = f"sed -n 's/^RIG_KEY_[A-Z0-9_]*=//p' {KEYS}"


@dataclass
class Watched:
    """A deploy, and everything that others could see of it."""

    done: subprocess.CompletedProcess[str]
    seen: dict[str, Any]
    keys: dict[str, str] = field(repr=False)
    """By variable, after the deploy."""
    home: Path
    began: float
    """Seconds since the epoch."""


def keys_of(lab: Lab) -> dict[str, str]:
    """The keys of a machine, by variable, and the password of its backup; in the memory of this test only."""
    lines = lab.sudo(f"grep -v '^#' {KEYS}; sed 's/^/BACKUP_PASSWORD=/' {PASSWORD}").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def watched(lab: Lab, home: Path) -> Watched:
    """Deploys with maximum output, with a home and a folder for temporary files that nobody else writes to."""
    lab.sudo("cat > /run/watch.py", input=Path(__file__).with_name("watch.py").read_text())
    watcher = subprocess.Popen(
        ["ssh", "-F", str(lab.ssh_config), NAME, "sudo -n python3 /run/watch.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "watching\n"
    (home / "tmp").mkdir(parents=True)
    began = time.time()
    done = lab.deploy(*TALKATIVE, environment={"HOME": str(home), "TMPDIR": str(home / "tmp")})
    shown, _ = watcher.communicate(timeout=60)
    code = done.returncode
    assert code == 0, "the deploy failed"
    return Watched(done, json.loads(shown), keys_of(lab), home, began)


@pytest.fixture(scope="module")
def lab(machines: Machines) -> Iterator[Lab]:
    lab = machines.boot(name="secretive")
    yield lab
    machines.end(lab)


@pytest.fixture(scope="module")
def first(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The run that makes all keys, on a machine right after the installer."""
    return watched(lab, tmp_path_factory.mktemp("first") / "home")


@pytest.fixture(scope="module")
def rotation(lab: Lab, first: Watched, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A run that replaces both engines' keys, whose lines the owner has deleted."""
    lab.sudo(f"sed -i '/^RIG_KEY_LLAMA_/d' {KEYS}")
    return watched(lab, tmp_path_factory.mktemp("rotation") / "home")


@pytest.fixture(scope="module", params=["first", "rotation"])
def run(request: pytest.FixtureRequest) -> Watched:
    found: Watched = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def every(first: Watched, rotation: Watched) -> set[str]:
    """Every key that was ever on the machine."""
    return {*first.keys.values(), *rotation.keys.values()}


def holds(text: str, keys: set[str]) -> bool:
    """True if a text contains a key."""
    return any(key in text for key in keys)


def assert_secret(what: str, texts: Iterable[str], keys: set[str]) -> None:
    """Require that no text contains a key. The assertion is about a number, because pytest prints compared values."""
    __tracebackhide__ = True
    bad = sum(holds(text, keys) for text in texts)
    assert bad == 0, f"{what}: a key stands in {bad} of them"


# The keys themselves


def test_every_key_is_256_bits_in_hex_and_unlike_the_others(first: Watched) -> None:
    assert {"RIG_KEY_LLAMA_70B", "RIG_KEY_LLAMA_8B"} <= first.keys.keys()
    well_formed = [name for name, key in first.keys.items() if re.fullmatch("[0-9a-f]{64}", key)]
    assert well_formed == list(first.keys)
    assert len(set(first.keys.values())) == len(first.keys)


def test_two_machines_have_no_key_in_common(first: Watched, deployed: Lab) -> None:
    others = keys_of(deployed)
    assert others.keys() == first.keys.keys()
    assert len({*others.values(), *first.keys.values()}) == 2 * len(others)


def test_only_a_key_that_is_missing_is_made_anew(lab: Lab, first: Watched, rotation: Watched) -> None:
    changed = {name for name, key in first.keys.items() if rotation.keys[name] != key}
    assert changed == {"RIG_KEY_LLAMA_70B", "RIG_KEY_LLAMA_8B"}
    assert len({*first.keys.values(), *rotation.keys.values()}) == len(first.keys) + len(changed)


def test_a_new_key_is_the_one_that_counts(lab: Lab, first: Watched, rotation: Watched) -> None:
    for variable, port in (("RIG_KEY_LLAMA_70B", 8002), ("RIG_KEY_LLAMA_8B", 8003)):
        answers = [
            lab.sudo(
                f"curl --silent --output /dev/null --write-out '%{{http_code}}' --config - http://127.0.0.1:{port}/props",
                input=f'header = "Authorization: Bearer {keys[variable]}"\n',
            ).stdout
            for keys in (first.keys, rotation.keys)
        ]
        assert answers == ["401", "200"]


# On the operator's side


def test_what_a_talkative_run_prints_holds_no_key(run: Watched, every: set[str]) -> None:
    assert "[pyinfra.connectors.ssh] Running command" in run.done.stderr, "it was to say all it can"
    assert_secret("the run's outputs", [run.done.stdout, run.done.stderr], every)


def test_no_file_that_a_run_leaves_with_the_operator_holds_a_key(lab: Lab, run: Watched, every: set[str]) -> None:
    # Proof that the search works: a word in a place where a run could have left a key.
    word = token_hex(32)
    planted = run.home / "tmp" / "planted"
    planted.write_text(f"api_key={word}\n")
    found = [
        path
        for folder in (run.home, CHECKOUT, lab.directory, Path("/tmp"))
        for path in _written_since(folder, run.began)
        if holds(_text(path), {*every, word})
    ]
    assert set(found) == {planted}


@pytest.mark.parametrize(
    "command",
    [
        ["pyinfra", "inventory.py", "debug-inventory"],
        ["pyinfra", "inventory.py", "debug-inventory", "--json"],
        ["pyinfra", "inventory.py", "deploy.py", "--dry", "--debug-facts", "--debug-operations", "-vvv"],
        ["pyinfra", "inventory.py", "deploy.py", "--dry", "--diff", "--json"],
        ["python", "-m", "rig", "check", "--json"],
    ],
    ids=lambda command: " ".join(command[2:]),
)
def test_a_look_at_the_machine_shows_no_key(
    lab: Lab, rotation: Watched, every: set[str], tmp_path: Path, command: list[str]
) -> None:
    done = subprocess.run(
        [str(program(command[0])), *command[1:]],
        cwd=CHECKOUT,
        env=lab.environment(HOME=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert NAME in done.stdout + done.stderr
    assert_secret("the outputs", [done.stdout, done.stderr], every)


# On the machine, while the deploy runs


def test_no_command_line_and_no_environment_holds_a_key(run: Watched, every: set[str]) -> None:
    assert run.seen["looks"] > 100
    commands = run.seen["commands"]
    assert any("docker compose" in command for command in commands), "the watcher missed what it had to see"
    assert any("/etc/rig/keys.env" in command for command in commands), "the watcher missed what it had to see"
    assert_secret("the command lines", commands, every)
    assert_secret("the environments", run.seen["environments"], every)


def test_the_keys_are_0600_from_their_first_byte(run: Watched) -> None:
    """Every file of keys was created 0600, and no change of its mode was needed or made."""
    events = [(event, path, mode) for event, path, mode in run.seen["files"] if path.startswith(f"{KEYS}")]
    events += [event for event in run.seen["files"] if event[1].startswith("/etc/rig/keys/")]
    named = {path for event, path, _ in events if event == "moved to"}
    assert named == {KEYS, "/etc/rig/keys/llama-8b"}, "the watcher missed what it had to see"
    assert {mode for _, _, mode in events} <= {"0o600", "gone"}
    assert {"created", "written", "moved from"} <= {event for event, *_ in events}
    assert [event for event in events if event[0] == "attributes"] == []


def test_copies_of_keys_are_closed_to_everybody_but_their_reader_from_their_first_byte(run: Watched) -> None:
    events = [event for event in run.seen["files"] if event[1].startswith("/etc/rig/prometheus-keys/")]
    named = {path.rpartition("/")[2] for event, path, _ in events if event in ("moved to", "there")}
    assert {"llama-70b", "llama-8b"} <= named, "the watcher missed what it had to see"
    assert {mode for _, _, mode in events} <= {"0o600", "0o640", "gone"}


def test_the_password_of_the_backup_is_0600_from_its_first_byte_and_made_once(
    first: Watched, rotation: Watched
) -> None:
    events = [(event, mode) for event, path, mode in first.seen["files"] if path.startswith(PASSWORD)]
    assert {"created", "written", "moved from", "moved to"} <= {event for event, _ in events}
    assert {mode for _, mode in events} <= {"0o600", "gone"}
    assert [event for event, path, _ in rotation.seen["files"] if path.startswith(PASSWORD)] == ["there"]


# On the machine, afterwards


def test_no_log_and_no_history_holds_a_key(lab: Lab, every: set[str]) -> None:
    lines = lab.sudo("journalctl --no-pager --output=export; journalctl --no-pager --output=verbose").stdout
    assert "COMMAND=" in lines, "sudo's own lines were to be among them"
    assert_secret("the journal", [lines], every)
    text = lab.sudo("cat /var/log/*.log /var/log/*/*.log /root/.*history /home/*/.*history 2>/dev/null || true").stdout
    assert_secret("the logs and histories", [text], every)


def test_a_key_lies_only_where_its_service_needs_it(lab: Lab, rotation: Watched) -> None:
    found = _files_with(lab, "root", set(rotation.keys.values()))
    assert {KEYS, "/etc/rig/keys/llama-8b"} <= set(found), "the search itself is broken"
    assert [path for path in found if not any(re.fullmatch(form, path) for form in RIGHTFUL)] == []


def test_a_key_that_was_replaced_lies_nowhere(lab: Lab, first: Watched, rotation: Watched) -> None:
    """Except for bytes that containerd's database, which only root can read, has not overwritten yet."""
    old = {key for name, key in first.keys.items() if rotation.keys[name] != key}
    assert [path for path in _files_with(lab, "root", old) if not path.endswith("/meta.db")] == []


def test_an_ordinary_user_of_the_machine_finds_no_key(lab: Lab, every: set[str]) -> None:
    assert _files_with(lab, "nobody", every) == []
    others = lab.sudo("runuser -u nobody -- sh -c 'cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null || true'")
    assert_secret("the environments and command lines that it can read", others.stdout.split("\0"), every)


def _files_with(lab: Lab, user: str, keys: set[str]) -> list[str]:
    """Files in which a user can read one of the keys; packages' own files and layers of images are left out."""
    script = (
        "grep --recursive --files-with-matches --text --fixed-strings --file=- --devices=skip --no-messages "
        "--exclude-dir=overlay2 --exclude-dir=apt --exclude-dir=dpkg --exclude-dir=cgroup "
        "/etc /home /root /srv /tmp /var /run /opt /mnt || [ $? -le 2 ]"
    )
    return lab.sudo(f"runuser -u {user} -- sh -c '{script}'", input="\n".join(keys) + "\n").stdout.split()


def _written_since(folder: Path, began: float) -> Iterator[Path]:
    """Files written since, except the repository's database, libraries, artefacts and disks of machines."""
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", ".venv", "cache")]
        for path in (Path(at, name) for name in names if not name.endswith(".img")):
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_mtime >= began and status.st_size < LARGEST:
                yield path


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:
        return ""
