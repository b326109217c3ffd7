"""Operations on a throwaway root, as data: what each makes, and every way to break it that it must see and repair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rig.facts.firewall import RULES
from rig.firewall import values
from rig.monitoring.thermal import TARGET
from rig.operations import (
    backup,
    containers,
    files,
    gateway_keys,
    gateway_reader,
    machine,
    monitoring,
    packages,
    secrets,
    thermal,
)
from rig.render import render
from rigd.gateway.config import METRICS
from tests.unit.sample import settings

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0F2Tym2W1zEq0bbnKzdRNHW3IbpbF0RMGpCZ5OvXnf one"
STORE = "/etc/rig/keys.env"
HEX_KEYS = f"grep -cE '^RIG_KEY_(ONE|TWO)=[0-9a-f]{{64}}$' {STORE}"


NO_SERVICE = """\
mount -t tmpfs none /usr/local/sbin
cat >/usr/local/sbin/systemctl <<'END'
#!/bin/sh
printf '%s\\n' LoadState=not-found ActiveState=inactive UnitFileState= NeedDaemonReload=no
END
chmod 0755 /usr/local/sbin/systemctl
"""
"""What systemd says of a unit before its package is installed; a throwaway root has no systemd."""


@dataclass(frozen=True)
class Case:
    """One operation, and shell scripts that are run as root outside pyinfra."""

    operation: Callable[..., Any]
    arguments: Mapping[str, Any]
    look: str
    """Prints the state that counts."""
    expected: str
    """What ``look`` prints once the operation has run, and never before."""
    drifts: Mapping[str, str]
    """Ways to break it, by name."""
    given: str = "true"
    """What was there before the first run."""
    keeps: str = "true"
    """Prints what no run may change: what was there before, and what the first run made for good."""


def _file(path: str) -> str:
    return f'stat -c "%F %a %U:%G" {path}; cat {path}; ls {path}.rig-new 2>/dev/null || true'


CASES = {
    "a file": Case(
        operation=files.written,
        arguments={"path": "/etc/deep/er/rig.conf", "text": "one = 1\n"},
        look=_file("/etc/deep/er/rig.conf"),
        expected="regular file 644 root:root\none = 1\n",
        drifts={
            "edited": "echo two >>/etc/deep/er/rig.conf",
            "cut short": "truncate -s 3 /etc/deep/er/rig.conf",
            "removed": "rm /etc/deep/er/rig.conf",
            "its folder removed": "rm -r /etc/deep",
            "hidden from others": "chmod 0600 /etc/deep/er/rig.conf",
            "given away": "chown owner:owner /etc/deep/er/rig.conf",
            "replaced by a link": "mv /etc/deep/er/rig.conf /srv/x; ln -s /srv/x /etc/deep/er/rig.conf",
            "left half-written by a killed run": "echo one >/etc/deep/er/rig.conf.rig-new; rm /etc/deep/er/rig.conf",
        },
    ),
    "several files": Case(
        operation=files.written_together,
        arguments={"texts": {"/etc/a b.conf": "a\n", "/opt/b/c.conf": "c\n"}},
        look='stat -c "%n %F %a %U:%G" "/etc/a b.conf" /opt/b/c.conf; cat "/etc/a b.conf" /opt/b/c.conf',
        expected="/etc/a b.conf regular file 644 root:root\n/opt/b/c.conf regular file 644 root:root\na\nc\n",
        drifts={
            "the first edited": "echo x >'/etc/a b.conf'",
            "the second removed": "rm /opt/b/c.conf",
            "the second hidden": "chmod 0 /opt/b/c.conf",
        },
    ),
    "the packet filter's file": Case(
        operation=files.written,
        arguments={
            "path": RULES,
            "text": render(RULES, **values(settings({}).firewall)),
        },
        look=f"unshare --net sh -c 'nft -f {RULES} && nft list table inet rig' | grep -c 'policy drop\\|dport 22 '",
        expected="3\n",
        drifts={
            "its default reversed": f"sed -i 's/policy drop/policy accept/' {RULES}",
            "no rules at all": f": >{RULES}",
        },
    ),
    "who logs in": Case(
        operation=machine.authorized_keys,
        arguments={"user": "owner", "folder": "/home/owner/.ssh", "keys": [KEY]},
        look='cd /home/owner/.ssh && stat -c "%F %a %U:%G" . authorized_keys && cat authorized_keys',
        expected=f"directory 700 owner:owner\nregular file 600 owner:owner\n{KEY}\n",
        drifts={
            "a stranger's key": "echo ssh-ed25519 AAAA stranger >>/home/owner/.ssh/authorized_keys",
            "none": ": >/home/owner/.ssh/authorized_keys",
            "readable by others": "chmod 0644 /home/owner/.ssh/authorized_keys",
            "a folder others can write to": "chmod 0777 /home/owner/.ssh",
            "a folder of somebody else's": "chown -R stranger: /home/owner/.ssh",
            "a link to a stranger's file": "cd /home/owner/.ssh && mv authorized_keys /home/stranger/keys && "
            "ln -s /home/stranger/keys authorized_keys",
        },
    ),
    "a user": Case(
        operation=machine.account,
        arguments={"user": "guest", "groups": ["video"], "shell": "/bin/sh", "home": "/home/guest"},
        look="getent passwd guest | cut -d: -f6-; id -nG guest | grep -o video; stat -c '%F %U' /home/guest",
        expected="/home/guest:/bin/sh\nvideo\ndirectory guest\n",
        drifts={
            "another shell": "usermod --shell /usr/sbin/nologin guest",
            "out of its group": "gpasswd --delete guest video",
            "removed": "userdel guest",
        },
    ),
    "kernel parameters": Case(
        operation=machine.sysctl,
        arguments={"values": {"net.core.somaxconn": "4097"}, "file": "/etc/sysctl.d/60-rig.conf"},
        given="mkdir /etc/sysctl.d && echo net.core.somaxconn = 4097 >/etc/sysctl.d/60-rig.conf",
        look="cat /proc/sys/net/core/somaxconn",
        expected="4097\n",
        drifts={"another value": "echo 77 >/proc/sys/net/core/somaxconn"},
    ),
    "keys": Case(
        operation=secrets.keys,
        arguments={"variables": ["RIG_KEY_ONE", "RIG_KEY_TWO"], "native": {"two": "RIG_KEY_TWO"}},
        given=f"echo RIG_KEY_OLD=kept >{STORE}",
        look=f'stat -c "%a %U:%G" {STORE} /etc/rig/keys /etc/rig/keys/two; {HEX_KEYS}; '
        f"[ RIG_KEY_TWO=$(cat /etc/rig/keys/two) = $(grep ^RIG_KEY_TWO= {STORE}) ] && echo same",
        expected="600 root:root\n700 root:root\n600 root:root\n2\nsame\n",
        drifts={
            "readable by others": f"chmod 0644 {STORE}",
            "given away": f"chown owner {STORE}",
            "a line deleted": f"sed -i /^RIG_KEY_ONE=/d {STORE}",
            "a copy replaced": "echo wrong >/etc/rig/keys/two",
            "a copy removed": "rm /etc/rig/keys/two",
            "a copy readable by others": "chmod 0644 /etc/rig/keys/two",
            "the folder opened": "chmod 0755 /etc/rig/keys",
        },
        keeps=f"grep -e ^RIG_KEY_OLD= -e ^RIG_KEY_TWO= {STORE}",
    ),
    "the password of the backup": Case(
        operation=backup.password,
        arguments={"repository": "/mnt/restic"},
        look='stat -c "%F %a %U:%G" /etc/rig/backup-password; grep -cE "^[0-9a-f]{64}$" /etc/rig/backup-password',
        expected="regular file 600 root:root\n1\n",
        drifts={
            "readable by others": "chmod 0644 /etc/rig/backup-password",
            "given away": "chown owner /etc/rig/backup-password",
        },
        keeps="cat /etc/rig/backup-password",
    ),
    "no backups": Case(
        operation=backup.retired,
        arguments={"files": ["/etc/cron.d/rig-backup", "/etc/rig/backup.json"]},
        given="mkdir /etc/cron.d && touch /etc/cron.d/rig-backup /etc/cron.d/other && "
        "cd /etc/rig && touch backup.json backup-password",
        look="ls /etc/cron.d /etc/rig",
        expected="/etc/cron.d:\nother\n\n/etc/rig:\nbackup-password\n",
        drifts={"a file is back": "touch /etc/rig/backup.json"},
    ),
    "keys for Prometheus": Case(
        operation=monitoring.keys,
        arguments={"engines": {"web": "RIG_KEY_WEB"}},
        given=f"echo RIG_KEY_WEB=sesame >{STORE}",
        look='cd /etc/rig/prometheus-keys && stat -c "%n %a %U:%G" . $(ls -A) && cat web',
        expected=". 750 root:prometheus\nweb 640 root:prometheus\nsesame",
        drifts={
            "readable by everyone": "chmod 0644 /etc/rig/prometheus-keys/web",
            "the folder opened": "chmod 0755 /etc/rig/prometheus-keys",
            "another key": "echo other >/etc/rig/prometheus-keys/web",
            "a key of an engine that is gone": "touch /etc/rig/prometheus-keys/gone",
            "a copy left by a killed run": "echo sesame >/etc/rig/prometheus-keys/.new",
        },
    ),
    "Prometheus' files": Case(
        operation=monitoring.configured,
        arguments={"texts": {"a.yml": "good: 1\n", "b.yml": "b: 2\n"}, "checks": ["grep -q good a.yml"]},
        look='cd /etc/rig/prometheus && stat -c "%n %a %U:%G" * && cat *; ls /etc/rig',
        expected="a.yml 644 root:root\nb.yml 644 root:root\ngood: 1\nb: 2\nprometheus\n",
        drifts={
            "one edited": "echo x >/etc/rig/prometheus/b.yml",
            "one removed": "rm /etc/rig/prometheus/a.yml",
            "half-written by a killed run": "mkdir /etc/rig/prometheus.new; rm /etc/rig/prometheus/a.yml",
        },
    ),
    "the way to the thermal monitor's figures": Case(
        operation=thermal.settled,
        arguments={"wanted": [], "linked": True},
        given="mkdir -p /var/lib/prometheus/node-exporter",
        look="readlink /var/lib/prometheus/node-exporter/rig_gpu.prom",
        expected=f"{TARGET}\n",
        drifts={
            "it leads elsewhere": "ln -sfn /etc/passwd /var/lib/prometheus/node-exporter/rig_gpu.prom",
            "it is gone": "rm /var/lib/prometheus/node-exporter/rig_gpu.prom",
        },
    ),
    "the clients' keys": Case(
        operation=gateway_keys.in_force,
        arguments={},
        # A stand-in that knows whether its file is there.
        given="mount -t tmpfs none /usr/local/bin && cat >/usr/local/bin/rig-keys <<'END' && "
        "chmod 0755 /usr/local/bin/rig-keys\n"
        '#!/bin/sh\ncase $1 in list) [ -e /etc/rig/applied ] ;; apply) touch /etc/rig/applied ;; esac\nEND\n',
        look="ls /etc/rig",
        expected="applied\n",
        drifts={"others are in force": "rm /etc/rig/applied"},
    ),
    "the way to the metrics of the gateway's clients": Case(
        operation=gateway_reader.settled,
        arguments={"wanted": True, "linked": True},
        given="mkdir -p /var/lib/prometheus/node-exporter",
        look="readlink /var/lib/prometheus/node-exporter/rig_gateway.prom",
        expected=f"{METRICS}\n",
        drifts={
            "it leads elsewhere": "ln -sfn /etc/passwd /var/lib/prometheus/node-exporter/rig_gateway.prom",
            "it is gone": "rm /var/lib/prometheus/node-exporter/rig_gateway.prom",
        },
    ),
    "no way to the metrics of a gateway that is gone": Case(
        operation=gateway_reader.settled,
        arguments={"wanted": False, "linked": False},
        given="mkdir -p /var/lib/prometheus/node-exporter && "
        f"ln -s {METRICS} /var/lib/prometheus/node-exporter/rig_gateway.prom",
        look="ls -A /var/lib/prometheus/node-exporter",
        expected="",
        drifts={"it is left": f"ln -sfn {METRICS} /var/lib/prometheus/node-exporter/rig_gateway.prom"},
    ),
    "Docker's configuration": Case(
        operation=containers.daemon,
        arguments={"wanted": {"live-restore": True, "log-opts": {"max-size": "1m"}}},
        given=NO_SERVICE
        + """mkdir /etc/docker && echo '{"debug": true, "log-opts": {"max-file": "3"}}' >/etc/docker/daemon.json""",
        look='stat -c "%a %U:%G" /etc/docker/daemon.json; tr -d " \\n" </etc/docker/daemon.json',
        expected='644 root:root\n{"debug":true,"log-opts":{"max-file":"3","max-size":"1m"},"live-restore":true}',
        drifts={
            "a value changed": "sed -i 's/1m/2m/' /etc/docker/daemon.json",
            "hidden from others": "chmod 0600 /etc/docker/daemon.json",
        },
    ),
    "packages": Case(
        operation=packages.present,
        arguments={"packages": ["tool", "other"]},
        look="dpkg-query -W; cat /opt/tool/version /opt/other/version",
        expected="other\t2\ntool\t2\n2\n2\n",
        drifts={
            "one removed": "dpkg --remove tool",
            "one removed, and its lists emptied": "dpkg --remove tool; rm -r /var/lib/apt/lists/*",
            "one unpacked by a killed run": "dpkg --purge tool; dpkg --unpack /srv/repository/tool_2.deb; "
            "dpkg --purge --force-all other",
        },
    ),
    "no packages": Case(
        operation=packages.absent,
        arguments={"packages": ["tool", "unknown"]},
        given="dpkg --install /srv/repository/tool_2.deb /srv/repository/other_2.deb",
        look="dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n'; ls /opt",
        expected="other ii \nother\n",
        drifts={"it is back": "dpkg --install /srv/repository/tool_2.deb"},
    ),
    "interrupted installations": Case(
        operation=packages.repaired,
        arguments={},
        given="dpkg --unpack /srv/repository/tool_2.deb",
        look="dpkg --audit; dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n'; "
        "[ -s /var/lib/dpkg/info/tool.list ] && echo ok",
        expected="tool ii \nok\n",
        drifts={
            "again": "dpkg --unpack /srv/repository/tool_2.deb",
            "its list of files emptied by a power cut": ": >/var/lib/dpkg/info/tool.list",
        },
    ),
}
