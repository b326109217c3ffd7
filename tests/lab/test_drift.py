"""A machine that was changed behind the tool's back: seen by the host tests, told by --dry, mended by the next run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from lab.machine import Lab
from tests.lab.fingerprint import Fingerprint, differences, lives, restarted
from tests.lab.runs import host_tests, plan, run

NATIVE = "rig-native@llama-8b.service"
CONTAINER = "rig-container@llama-70b.service"
DEFINE = "engines | Define llama-70b in /etc/rig/compose.yaml"
NODE_EXPORTER = "prometheus-node-exporter.service"
DROP_IN = f"/etc/systemd/system/{NATIVE}.d/engine.conf"
MODEL = "$(echo /mnt/models/tiny/*/tiny.gguf)"
"""For a shell; the folder is that of the version."""


@dataclass(frozen=True)
class Drift:
    """One way to break a machine, and everything that must follow from it."""

    command: str
    """Breaks the machine, as root."""
    seen_by: dict[str, tuple[str, ...]]
    """Host tests that must fail, by concern."""
    told: set[str]
    """Operations that --dry must report, and no other."""
    needless: set[str] = field(default_factory=set)
    """Those of them that --dry cannot know to be settled by an earlier one: the run does not change them."""
    perhaps: set[str] = field(default_factory=set)
    """Those of them that the run changes or not: it waits for what an earlier one began."""
    restarted: set[str] = field(default_factory=set)
    """Services and containers that the mending starts again, and no other."""
    owner: str = "true"
    """What is left to the owner after it."""
    apart_from: set[str] = field(default_factory=set)
    """Operations that could not mend anything while this is broken."""

    @property
    def tests(self) -> set[str]:
        return {test for tests in self.seen_by.values() for test in tests}

    @property
    def claims(self) -> set[str]:
        """What no other drift may cause at the same time, so that it is known which of them did."""
        return self.told | self.restarted | self.tests | self.apart_from


DRIFTS = {
    "a package removed": Drift(
        command="dpkg --remove tree",
        seen_by={"machine": ("test_package_is_installed",)},
        told={"machine | Install packages"},
    ),
    "the time zone changed": Drift(
        command="ln -sf /usr/share/zoneinfo/Asia/Tokyo /etc/localtime",
        seen_by={"machine": ("test_clocks_show_the_time_zone_of_the_settings",)},
        told={"machine | Set the time zone to Europe/Berlin"},
    ),
    "a user's authorized key removed": Drift(
        command=": > /home/owner/.ssh/authorized_keys",
        seen_by={"machine": ("test_user_logs_in_with_the_keys_of_the_settings_and_no_other",)},
        told={"machine | Authorize the keys of owner"},
    ),
    "a stranger's key authorized": Drift(
        command="echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0F2Tym2W1zEq0bbnKzdRNHW3IbpbF0RMGpCZ5OvXnf stranger' "
        ">> /home/owner/.ssh/authorized_keys",
        seen_by={"machine": ("test_user_logs_in_with_the_keys_of_the_settings_and_no_other",)},
        told={"machine | Authorize the keys of owner"},
    ),
    "a kernel parameter's file edited": Drift(
        command="sed -i 's/^net.core.somaxconn.*/net.core.somaxconn = 77/' /etc/sysctl.d/60-rig.conf",
        seen_by={"machine": ("test_kernel_parameter_has_its_value_after_a_boot",)},
        told={"machine | Write /etc/sysctl.d/60-rig.conf"},
    ),
    "a kernel parameter changed in the kernel": Drift(
        command="sysctl --quiet --write net.core.somaxconn=77",
        seen_by={"machine": ("test_kernel_parameter_has_its_value_now",)},
        told={"machine | Apply kernel parameters"},
    ),
    "the journal's limits edited": Drift(
        command="sed -i 's/^SystemMaxUse=.*/SystemMaxUse=1G/' /etc/systemd/journald.conf.d/60-rig.conf",
        seen_by={"machine": ("test_journal_has_its_limits",)},
        told={
            "machine | Write /etc/systemd/journald.conf.d/60-rig.conf",
            "machine | Apply the journal's limits",
        },
        restarted={"systemd-journald.service"},
    ),
    "unattended updates switched off": Drift(
        command='sed -i \'s/"1"/"0"/\' /etc/apt/apt.conf.d/20auto-upgrades',
        seen_by={"machine": ("test_security_updates_are_installed_when_the_settings_say_so",)},
        told={"machine | Write /etc/apt/apt.conf.d/20auto-upgrades"},
    ),
    "unattended updates from everywhere": Drift(
        command="echo 'Unattended-Upgrade::Origins-Pattern { \"origin=*\"; };' "
        ">> /etc/apt/apt.conf.d/52rig-unattended-upgrades",
        seen_by={"machine": ("test_only_security_updates_are_installed_unattended",)},
        told={"machine | Write /etc/apt/apt.conf.d/52rig-unattended-upgrades"},
    ),
    "the backup folder opened to everyone": Drift(
        command="chmod 0755 /mnt/backup",
        seen_by={"storage": ("test_folder_has_owner_and_permissions",)},
        told={"storage | Create /mnt/backup"},
    ),
    "backups nobody asks for": Drift(
        command="rm /etc/cron.d/rig-backup",
        seen_by={"backup": ("test_cron_asks_at_the_time_of_the_settings_or_never",)},
        told={"backup | Write rig-backup's settings and its cron job"},
    ),
    "cron stopped for good": Drift(
        command="systemctl disable --now cron.service",
        seen_by={"backup": ("test_cron_runs_now_and_after_a_boot",)},
        told={"backup | Run cron"},
        restarted={"cron.service"},
    ),
    "the password of the backup readable by everyone": Drift(
        command="chmod 0644 /etc/rig/backup-password",
        seen_by={"backup": ("test_password_is_roots_alone_and_long",)},
        told={"backup | Write /etc/rig/backup-password"},
    ),
    "the key ring replaced by another key": Drift(
        command="cat /usr/share/keyrings/debian-archive-keyring.gpg > /etc/apt/keyrings/docker.asc",
        seen_by={"containers": ("test_key_ring_holds_the_pinned_keys_and_no_other",)},
        told={"containers | Write /etc/apt/keyrings/docker.asc"},
        apart_from={"machine | Install packages"},
    ),
    "the daemon's configuration edited": Drift(
        command='sed -i \'s/"live-restore": true/"live-restore": false/\' /etc/docker/daemon.json',
        seen_by={"containers": ("test_daemon_json_holds_what_the_settings_say",)},
        told={"containers | Merge /etc/docker/daemon.json", "containers | Run the container engine"},
        restarted={"docker.service"},
    ),
    "the container engine stopped": Drift(
        command="systemctl stop docker.socket docker.service",
        seen_by={"containers": ("test_container_engine_runs_and_starts_at_boot",)},
        told={
            "containers | Run the container engine",
            "engines | Pull the image of llama-70b",
            "engines | Run llama-70b in a container",
        },
        needless={"engines | Pull the image of llama-70b", "engines | Run llama-70b in a container"},
        restarted={"docker.service"},
    ),
    "the keys readable by everyone": Drift(
        command="chmod 0644 /etc/rig/keys.env",
        seen_by={"secrets": ("test_store_of_keys_is_roots_alone",)},
        told={"secrets | Write /etc/rig/keys.env"},
    ),
    "a service's own key replaced": Drift(
        command="echo wrong > /etc/rig/keys/llama-8b",
        seen_by={"secrets": ("test_services_own_key_file_is_its_key_and_roots_alone",)},
        told={"secrets | Write /etc/rig/keys.env"},
    ),
    "a bit of a model flipped, its time kept": Drift(
        command=f"touch -r {MODEL} /run/kept && printf X | dd of={MODEL} bs=1 seek=300000 conv=notrunc status=none "
        f"&& touch -r /run/kept {MODEL} && rm /run/kept",
        seen_by={"models": ("test_model_has_the_hashes_of_the_settings",)},
        told={"models | Start fetching the models", "models | Fetch the models"},
        perhaps={"models | Fetch the models"},
        owner="rm /mnt/models/tiny/*/tiny.gguf.*.aside",
    ),
    "a model that others can change": Drift(
        command=f"chmod 0666 {MODEL}",
        seen_by={"models": ("test_model_can_be_read_by_engines_and_changed_by_root_alone",)},
        told={"models | Start fetching the models", "models | Fetch the models"},
        perhaps={"models | Fetch the models"},
    ),
    "the compose file edited": Drift(
        command="sed -i 's/mem_limit: .*/mem_limit: 7g/' /etc/rig/compose.yaml",
        seen_by={"containers": ("test_container_is_asked_to_keep_the_limits_of_the_settings",)},
        told={DEFINE, "engines | Run llama-70b in a container"},
        needless={"engines | Run llama-70b in a container"},
    ),
    "the compose file given away": Drift(
        command="chown rig /etc/rig/compose.yaml",
        seen_by={"engines": ("test_compose_file_names_no_key_and_is_roots_alone_to_change",)},
        told={DEFINE},
    ),
    "a container killed": Drift(
        command="docker kill rig-llama-70b",
        seen_by={
            "containers": ("test_container_runs_and_is_healthy",),
            "engines": ("test_engine_answers_whoever_has_its_key",),
        },
        told={"engines | Run llama-70b in a container"},
        restarted={CONTAINER, "container rig-llama-70b"},
    ),
    "a service's limits edited": Drift(
        command=f"sed -i 's/^MemoryMax=.*/MemoryMax=7G/' {DROP_IN} && systemctl daemon-reload",
        seen_by={"engines": ("test_service_has_the_limits_of_the_settings",)},
        told={f"engines | Write {DROP_IN}", "engines | Run llama-8b as a service"},
        restarted={NATIVE},
    ),
    "a service given up by systemd after too many starts": Drift(
        command=f"while systemctl start {NATIVE} 2>/dev/null; do systemctl stop {NATIVE}; done",
        seen_by={
            "engines": ("test_engine_runs_now_and_after_a_boot", "test_engine_answers_whoever_has_its_key")
        },
        told={"engines | Run llama-8b as a service"},
        restarted={NATIVE},
    ),
    "the packet filter's file edited": Drift(
        command="sed -i 's/tcp dport 22/tcp dport 1-65535/' /etc/rig/firewall.nft",
        seen_by={"firewall": ("test_rules_of_the_next_boot_are_those_of_now",)},
        told={"firewall | Write /etc/rig/firewall.nft", "firewall | Load the packet filter"},
        needless={"firewall | Load the packet filter"},
    ),
    "a rule added": Drift(
        command="nft insert rule inet rig input tcp dport 9999 accept",
        seen_by={"firewall": ("test_exactly_the_ports_of_the_settings_are_open",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "a rule deleted": Drift(
        command="nft delete rule inet rig forward handle "
        "$(nft --handle list chain inet rig forward | sed -n 's/.*rig0.*drop # handle //p')",
        seen_by={"firewall": ("test_every_network_of_containers_is_closed_to_neighbours",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "node_exporter opened to everybody, once it is started again": Drift(
        command=f"sed -i 's/127.0.0.1:9100/0.0.0.0:9100/' /etc/systemd/system/{NODE_EXPORTER}.d/rig.conf",
        seen_by={"monitoring": ("test_program_runs_now_and_after_a_boot_from_its_current_file",)},
        told={"monitoring | Bind the monitoring programs to loopback", "monitoring | Run node_exporter"},
        restarted={NODE_EXPORTER},
    ),
    "an engine taken out of what Prometheus asks": Drift(
        command="sed -i '/^- job_name: engine-llama-8b/,$d' /etc/rig/prometheus/prometheus.yml",
        seen_by={"monitoring": ("test_prometheus_runs_with_what_its_files_say",)},
        told={"monitoring | Write /etc/rig/prometheus", "monitoring | Run Prometheus"},
    ),
    "Alertmanager stopped": Drift(
        command="systemctl stop prometheus-alertmanager.service",
        seen_by={"monitoring": ("test_alertmanager_has_loaded_its_file",)},
        told={"monitoring | Run Alertmanager"},
        restarted={"prometheus-alertmanager.service"},
    ),
    "a copy of a key readable by everyone": Drift(
        command="chmod 0644 /etc/rig/prometheus-keys/llama-8b",
        seen_by={"monitoring": ("test_prometheus_reads_the_key_of_an_engine_and_others_do_not",)},
        told={"monitoring | Give Prometheus the keys of the engines"},
    ),
    "the looking up of figures stopped": Drift(
        command="systemctl disable --now rig-metrics.timer",
        seen_by={"monitoring": ("test_what_no_program_shows_is_looked_up_as_often_as_the_settings_say",)},
        told={"monitoring | Run the rig-metrics timer"},
    ),
    "the packet filter not loaded at boot": Drift(
        command="systemctl disable rig-firewall.service",
        seen_by={"firewall": ("test_rules_come_back_after_a_boot",)},
        told={"firewall | Load the packet filter"},
    ),
}


def rounds(drifts: dict[str, Drift]) -> list[dict[str, Drift]]:
    """As few rounds as there can be of drifts that have nothing to do with each other: the time is spent by round."""
    found: list[dict[str, Drift]] = []
    for name, drift in drifts.items():
        for others in found:
            if all(drift.claims.isdisjoint(other.claims) for other in others.values()):
                others[name] = drift
                break
        else:
            found.append({name: drift})
    return found


ROUNDS = rounds(DRIFTS)

SEED = os.environ.get("RIG_TEST_SEED") or str(datetime.now(UTC).toordinal())
SINGLE = ROUNDS if os.environ.get("RIG_TEST_ALL") else [random.Random(SEED).choice(ROUNDS)]
"""Rounds that are also mended by a run that reads one by one, and must end alike: another one each day."""
CASES = [("", drifts) for drifts in ROUNDS] + [("single", drifts) for drifts in SINGLE]


@dataclass
class Subject:
    """The machine that is broken again and again, and what it was like before."""

    lab: Lab
    before: Fingerprint
    broken: bool = False


@pytest.fixture(scope="module")
def shared(deployed: Lab) -> Subject:
    return Subject(deployed, Fingerprint.of(deployed))


@pytest.fixture
def subject(shared: Subject) -> Iterator[Subject]:
    """As it should be; also after a test that failed half-way."""
    if shared.broken:
        run(shared.lab)
        shared.lab.sudo("\n".join(drift.owner for drift in DRIFTS.values()), check=False)
        shared.before = Fingerprint.of(shared.lab)
    shared.broken = True
    yield shared


@pytest.fixture(scope="module")
def beside() -> Iterator[ThreadPoolExecutor]:
    """Does what only looks at the machine while something else only looks at it, too."""
    with ThreadPoolExecutor() as executor:
        yield executor


@pytest.mark.parametrize(
    ("reads", "drifts"),
    [(reads, list(drifts.values())) for reads, drifts in CASES],
    ids=[f"{'one by one' if reads else 'ahead'}: {', '.join(drifts)}" for reads, drifts in CASES],
)
def test_drifts_are_seen_told_and_mended_and_nothing_else_is_touched(
    subject: Subject,
    beside: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    reads: str,
    drifts: list[Drift],
) -> None:
    lab = subject.lab
    monkeypatch.setenv("RIG_READS", reads)
    files = sorted({f"tests/host/test_{concern}.py" for drift in drifts for concern in drift.seen_by})
    tests = _all(drift.tests for drift in drifts)
    lived = lives(lab)

    lab.sudo("set -e\n" + "\n".join(drift.command for drift in drifts))
    seen = beside.submit(host_tests, lab, *files, "-k", " or ".join(tests))
    assert plan(lab).changes == _all(drift.told for drift in drifts)
    assert seen.result().failed == tests, seen.result().output

    settled = _all(drift.told - drift.needless for drift in drifts)
    assert settled - _all(drift.perhaps for drift in drifts) <= run(lab).changes <= settled
    assert restarted(lived, lives(lab)) == _all(drift.restarted for drift in drifts)
    lab.sudo("\n".join(drift.owner for drift in drifts))

    # The one test that takes apt's lock, for which the run beside it would wait, is left out.
    again = beside.submit(host_tests, lab, *files, "-k", "not test_the_package_lists_can_be_used")
    assert run(lab).changes == set()
    assert again.result().code == 0, again.result().output
    assert "\n".join(differences(subject.before, Fingerprint.of(lab))) == ""
    subject.broken = False


def _all(sets: Iterable[set[str]]) -> set[str]:
    return set().union(*sets)
