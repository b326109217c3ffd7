"""Backups onto a disk that fails in every way that disks do; and a machine that is restored from one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml

from lab.machine import NAME, Lab
from lab.spec import HUB_PORT
from tests.lab import disks
from tests.lab.conftest import Machines
from tests.lab.runs import host_tests, run
from tests.lab.traces import eventually

LABEL = "backup"
STORAGE = {"backup": {"mount": {"source": f"LABEL={LABEL}"}, "must_be_mount": True}}
BACKUP = {"paths": ["/srv/own"]}
TARGET = "/mnt/backup"
MODELS = f"{TARGET}/models"
PASSWORD = "/etc/rig/backup-password"
STATE = "/var/lib/rig/backup/state.json"
CRON = "/etc/cron.d/rig-backup"
METRICS = "/var/lib/prometheus/node-exporter/rig_backup.prom"
WORDS = "/srv/own/words"
"""A file of the owner's own program."""
SEARCH = "sudo rig-backup restore"

# Begins a backup, waits until restic writes, runs a command, and reports how the backup ended.
IN_THE_MIDDLE = f"""
head -c 60M /dev/urandom >/srv/own/large
touch /run/mark
rig-backup run 2>/run/said & backup=$!
while kill -0 $backup 2>/dev/null && [ -z "$(find {TARGET}/restic/data -type f -newer /run/mark | head -n 1)" ]; do
  sleep 0.02
done
kill -0 $backup || {{ echo "it was too quick"; exit 9; }}
@DO@
wait $backup; code=$?
rm /srv/own/large
cat /run/said >&2
exit $code
"""


class Backed:
    """A machine with a disk for its backups."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        path = lab.directory / "hosts.yml"
        hosts: dict[str, Any] = yaml.safe_load(path.read_text())
        hosts["hosts"][NAME]["settings"] |= {"storage": STORAGE, "backup": BACKUP}
        path.write_text(yaml.safe_dump(hosts))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a backup, however it ends."""
        return self.lab.sudo(f"rig-backup run {' '.join(words)}", check=False, timeout=600)

    def in_the_middle(self, what: str) -> subprocess.CompletedProcess[str]:
        """Run a backup, and a command while it writes."""
        return self.lab.sudo(IN_THE_MIDDLE.replace("@DO@", what), check=False, timeout=600)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lab.sudo("rig-backup status --json", check=False).stdout)
        return found

    def wrong_copies(self) -> str:
        """Bad copies, found with nothing but the disk."""
        check = "[ -s SHA256SUMS ] && sha256sum --check --strict --quiet SHA256SUMS"
        return self.lab.sudo(f"cd {MODELS} && {check}").stdout

    def restic(self, words: str) -> str:
        environment = f"RESTIC_PASSWORD_FILE={PASSWORD} RESTIC_REPOSITORY={TARGET}/restic"
        return self.lab.sudo(f"{environment} restic --no-cache {words}").stdout

    def model(self) -> str:
        """The file on the machine."""
        return self.lab.sudo("ls /mnt/models/tiny/*/tiny.gguf").stdout.strip()

    def copy(self) -> str:
        return self.model().replace("/mnt/models", MODELS)

    def is_due(self) -> None:
        """Set the state of a machine whose first backup was scheduled long ago, and missed."""
        self.lab.sudo(f"touch --date='3 weeks ago' {PASSWORD}; rm -f {STATE}")


def sent(lab: Lab) -> int:
    """Bytes of models that the hub of a lab has sent."""
    counters = requests.get(f"http://{lab.network.services}:{HUB_PORT}/admin/counters", timeout=10).json()
    return sum(int(entry["bytes"]) for path, entry in counters.items() if path.endswith(".gguf"))


@pytest.fixture(scope="module")
def backed(machines: Machines) -> Iterator[Backed]:
    """A Debian 12, with the oldest restic, deployed with a backup disk; for the tests of this module in their order."""
    lab = machines.boot("bookworm", name="backed", converged=True)
    found = Backed(lab)
    disks.make(lab, LABEL, "256M")
    assert run(lab).changes
    lab.sudo(f"install -d -m 0750 /srv/own && echo 'state of a program' >{WORDS} && chmod 0640 {WORDS}")
    yield found
    machines.end(lab)


def test_a_backup_lands_on_its_disk_and_can_be_read_without_us(backed: Backed) -> None:
    before = host_tests(backed.lab, "tests/host/test_backup.py")
    assert before.code == 0, before.output
    done = backed.run()
    assert done.returncode == 0, done.stderr
    assert backed.wrong_copies() == ""
    assert backed.lab.sudo(f"cmp {backed.model()} {backed.copy()}; stat -c %m {backed.copy()}").stdout.strip() == TARGET
    listed = backed.restic("ls latest").splitlines()
    assert {"/etc/rig/keys.env", "/etc/rig/models.json", WORDS} <= set(listed)
    assert PASSWORD not in listed
    after = host_tests(backed.lab, "tests/host/test_backup.py")
    assert after.code == 0, after.output


def test_node_exporter_shows_when_it_was(backed: Backed) -> None:
    ended = backed.status()["success"]["ended"]
    shown = backed.lab.sudo("curl --silent --fail http://127.0.0.1:9100/metrics").stdout.splitlines()
    values = dict(line.split() for line in shown if line.startswith("rig_backup_"))
    assert float(values["rig_backup_last_success_timestamp_seconds"]) == pytest.approx(ended, abs=1)
    assert float(values["rig_backup_last_run_success"]) == 1
    assert int(float(values["rig_backup_model_files"])) == 1


def test_a_deploy_after_it_changes_nothing(backed: Backed) -> None:
    assert run(backed.lab).changes == set()


def test_the_next_one_copies_no_model_again(backed: Backed) -> None:
    before = backed.lab.sudo(f"stat -c '%i %y' {backed.copy()}").stdout
    assert backed.run().returncode == 0
    assert backed.status()["last"]["copied"] == 0
    assert backed.lab.sudo(f"stat -c '%i %y' {backed.copy()}").stdout == before


def test_a_model_with_one_wrong_byte_does_not_reach_the_backup_and_comes_back_from_it(backed: Backed) -> None:
    model = backed.model()
    backed.lab.sudo(f"printf X | dd of={model} bs=1 seek=300000 conv=notrunc status=none")
    done = backed.run()
    assert done.returncode == 1
    assert f"{model} has changed since it was verified; the backup keeps the right one" in done.stderr
    assert backed.wrong_copies() == ""
    problems = backed.status()["problems"]
    assert any(model in problem for problem in problems)

    before = sent(backed.lab)
    backed.lab.sudo("rig-models fetch && rm /mnt/models/tiny/*/*.aside")
    assert sent(backed.lab) == before
    assert backed.lab.sudo(f"cmp {model} {backed.copy()}").returncode == 0
    assert backed.run().returncode == 0


def test_a_full_disk_is_told_and_what_is_on_it_stays_right(backed: Backed) -> None:
    copy = backed.copy()
    backed.lab.sudo(f"rm {copy}; head -c 1G /dev/zero >{TARGET}/fill", check=False)
    backed.lab.sudo("head -c 4M /dev/urandom >/srv/own/more")
    done = backed.run()
    assert done.returncode == 1
    assert f"{TARGET}/restic: the disk is full" in done.stderr
    assert "models need 519.8 kB more in the backup" in done.stderr
    assert backed.lab.sudo(f"ls {copy}*", check=False).stdout == ""
    backed.lab.sudo(f"rm {TARGET}/fill /srv/own/more")
    assert backed.run().returncode == 0
    assert backed.wrong_copies() == ""
    assert "no errors were found" in backed.restic("check 2>&1")


def test_a_disk_that_became_read_only_is_told(backed: Backed) -> None:
    """As the kernel makes it when a disk fails."""
    backed.lab.sudo(f"mount -o remount,ro {TARGET}")
    try:
        done = backed.run()
        assert done.returncode == 1
        assert f"{TARGET} is mounted read-only" in done.stderr
        assert backed.status()["target"]["problem"] is not None
        assert backed.lab.sudo("rig-backup restore --yes").returncode == 0
    finally:
        backed.lab.sudo(f"mount -o remount,rw {TARGET}")
    # The disk is good again, and the last backup is not.
    chosen = "no_backup_has_failed or can_be_written or metrics"
    seen = host_tests(backed.lab, "tests/host/test_backup.py", "-k", chosen)
    assert seen.failed == {"test_no_backup_has_failed_and_none_is_overdue"}, seen.output
    assert backed.run().returncode == 0


def test_a_disk_that_fails_in_the_middle_is_told_and_the_next_backup_is_right(backed: Backed) -> None:
    done = backed.in_the_middle(f"mount -o remount,abort {TARGET}")
    assert done.returncode == 1
    assert f"restic backup of {TARGET}/restic was ended: the disk takes nothing any more" in done.stderr
    assert len(backed.status()["problems"]) >= 1
    lab = backed.lab
    lab.sudo("systemctl stop mnt-backup.mount")
    disks.unplug(lab, LABEL)
    lab.sudo(f"fsck.ext4 -fy /{LABEL}.img || [ $? = 1 ]")
    disks.plug(lab, LABEL)
    lab.sudo(f"systemctl start {TARGET}")
    assert backed.run().returncode == 0
    assert backed.wrong_copies() == ""
    assert "no errors were found" in backed.restic("check 2>&1")


def test_a_disk_that_is_unplugged_in_the_middle_leaves_nothing_on_the_systems_disk(backed: Backed) -> None:
    done = backed.in_the_middle(f"umount --lazy {TARGET}")
    assert done.returncode == 1, done.stderr
    assert f"{TARGET} was taken away in the middle; connect it again" in done.stderr
    assert backed.lab.sudo(f"find {TARGET} -mindepth 1").stdout == ""
    gone = backed.run()
    assert gone.returncode == 1
    assert f"{TARGET} is not mounted, and storage.backup asks for a disk" in gone.stderr
    assert backed.lab.sudo(f"find {TARGET} -mindepth 1").stdout == ""
    # The remedy in the message.
    assert f"systemctl start {TARGET}" in gone.stderr
    backed.lab.sudo(f"systemctl start {TARGET}")
    again = backed.run()
    assert again.returncode == 0, again.stderr
    assert "no errors were found" in backed.restic("check 2>&1")


def test_a_backup_that_was_killed_leaves_no_lock_that_stops_the_next(backed: Backed) -> None:
    done = backed.in_the_middle("kill -9 $backup")
    assert done.returncode == 137
    assert backed.status()["last"]["result"] == "cut off"
    assert backed.run().returncode == 0
    assert backed.status()["failures"] == 0
    assert backed.restic("list locks") == ""


def test_cron_makes_up_for_a_backup_that_was_missed_while_the_machine_was_off(backed: Backed) -> None:
    lab = backed.lab
    backed.is_due()
    # Cron's own line, with a test's timeouts. Synced: on a machine that was off for weeks, all of this is on the disk.
    lab.sudo(f"sed -i 's/^[0-9,]* [*]/* */' {CRON}; sync")
    lab.power_cut()
    lab.start()
    eventually(lambda: _said(lab, f"{TARGET} is not mounted"), seconds=240)
    assert backed.status()["success"] is None

    disks.plug(lab, LABEL)
    lab.sudo(f"systemctl start {TARGET}")
    backed.is_due()
    eventually(lambda: [] if backed.status()["success"] else [backed.status()["last"]], seconds=240)
    assert backed.wrong_copies() == ""
    assert _said(lab, "backed up to /mnt/backup: snapshot") == []
    # Once, however many checks follow.
    success = backed.status()["success"]["started"]
    assert backed.run("--if-due").returncode == 0
    assert backed.status()["success"]["started"] == success
    assert run(lab).changes == {"backup | Write rig-backup's settings and its cron job"}


def _said(lab: Lab, words: str) -> list[str]:
    """Empty once cron's runs have written these words to the journal."""
    lines = lab.sudo("journalctl --identifier=rig-backup --output=cat --no-pager", check=False).stdout
    return [] if words in lines else [f"the journal does not say {words!r}: {lines[-1000:]}"]


def test_without_backups_nothing_tells_of_them_and_nothing_warns(backed: Backed) -> None:
    lab = backed.lab
    files, rules = f"{CRON} /etc/rig/backup.json {METRICS}", "/etc/rig/prometheus/rules.yml"
    told = lab.sudo(f"ls {files} >/dev/null && grep --only-matching 'Backup[A-Z][A-Za-z]*$' {rules}").stdout
    assert set(told.split()) == {"BackupTooOld", "BackupFailed", "BackupNeverAsked"}
    off = ("--data", "backup.enabled=false")
    assert run(lab, *off).changes == {
        "backup | Remove the backup job",
        "monitoring | Write /etc/rig/prometheus",
        "monitoring | Run Prometheus",
    }
    assert lab.sudo(f"ls {files} 2>/dev/null; grep Backup {rules}", check=False).stdout == ""
    assert "rig_backup_" not in lab.sudo("curl --silent --fail http://127.0.0.1:9100/metrics").stdout
    assert run(lab).changes
    assert backed.run().returncode == 0


def test_a_machine_that_is_gone_is_brought_back_from_its_disk(backed: Backed, machines: Machines) -> None:
    """Step by step as in docs/backup.md; on a newer Debian, as machines are rebuilt."""
    old = backed.lab
    assert backed.run().returncode == 0
    password = old.sudo("rig-backup password").stdout
    key = old.sudo("sed -n 's/^RIG_KEY_LLAMA_8B=//p' /etc/rig/keys.env").stdout.strip()
    old.sudo("systemctl stop mnt-backup.mount")
    disks.unplug(old, LABEL)

    lab = machines.boot(name="brought-back")
    new = Backed(lab)
    disks.carry(LABEL, old, lab)
    old.kill()

    stopped = lab.deploy()
    assert stopped.returncode == 1
    assert f"{TARGET}/restic holds the backup of an earlier life of this machine" in stopped.stderr
    assert SEARCH in stopped.stderr
    assert lab.sudo("ls /etc/rig/keys.env", check=False).returncode != 0
    assert new.status()["password"]["there"] is False

    wrong = lab.sudo("rig-backup restore", input="not the password\n", check=False)
    assert wrong.returncode == 1
    assert "type it again, as it was written down" in wrong.stderr
    restored = lab.sudo("rig-backup restore", input=password, check=False)
    assert restored.returncode == 0, restored.stderr
    assert "and 1 model files; now deploy" in restored.stdout

    assert run(lab).changes
    assert sent(lab) == 0
    everything = host_tests(lab)
    assert everything.code == 0, everything.output
    assert lab.sudo(f"cat {WORDS}; stat -c %a {WORDS}").stdout == "state of a program\n640\n"
    header = f'header = "Authorization: Bearer {key}"\n'
    answer = "curl --silent --output /dev/null --write-out '%{http_code}' --config - http://127.0.0.1:8003/props"
    assert lab.sudo(answer, input=header).stdout == "200"
    assert lab.sudo(answer, input=header.replace(key, key[::-1])).stdout == "401"

    assert run(lab).changes == set()
    assert new.run().returncode == 0
    assert new.wrong_copies() == ""
    machines.end(lab)
