"""State of the SSH server."""

from __future__ import annotations

from pyinfra.api import FactBase

from rig.ssh import CONFIG, Server


class SshServer(FactBase[Server]):
    """The SSH server's configuration in force, and whether it was started since ours changed."""

    def command(self) -> str:
        # Ubuntu starts the server at the first connection; one that does not run reads its files when it starts.
        return rf"""
[ -x /usr/sbin/sshd ] && echo Installed=yes
grep -qsiE '^\s*Include\s+(/etc/ssh/)?sshd_config\.d/\*\.conf' /etc/ssh/sshd_config && echo Included=yes
/usr/sbin/sshd -T 2>/dev/null | sed -n 's/^authorizedkeysfile /KeyFiles=/p'
systemctl show --property=ActiveEnterTimestampMonotonic ssh.service
echo "Changed=$(stat -c %.Z {CONFIG} 2>/dev/null)"
echo "Uptime=$(cut -d' ' -f1 /proc/uptime)"
echo "Now=$(date +%s.%N)"
"""

    def process(self, output: list[str]) -> Server:
        values = dict(line.split("=", 1) for line in output if "=" in line)
        entered = int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        started = float(values["Now"]) - float(values["Uptime"]) + entered
        return Server(
            installed="Installed" in values,
            included="Included" in values,
            key_files=values.get("KeyFiles", ""),
            outdated=bool(entered and values["Changed"]) and float(values["Changed"] or 0) > started,
        )
