"""Kinds of drift as data: the command for each, the host tests that see it, and the deploy's reaction.

A new kind is a new entry: `test_drift.py` does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NATIVE = "rig-native@llama-8b.service"
CONTAINER = "rig-container@llama-70b.service"
DEFINE = "engines | Define llama-70b in /etc/rig/compose.yaml"
NODE_EXPORTER = "prometheus-node-exporter.service"
DROP_IN = f"/etc/systemd/system/{NATIVE}.d/engine.conf"
UPDATES = "test_security_updates_are_installed_when_the_settings_say_so"
KEYS_OF_USERS = "test_user_logs_in_with_the_keys_of_the_settings_and_no_other"
KEYS_GUARDED = "test_users_keys_are_nobody_elses_to_change"
KEY_LOGINS = "machine | Let only keys log in over SSH"
PROGRAM = "test_program_runs_now_and_after_a_boot_from_its_current_file"
UNITS_OF_RIG = "test_nobody_else_changes_a_unit_of_rigs"
COPIES = "test_prometheus_reads_the_key_of_an_engine_and_others_do_not"
GATEWAY = "gateway | Run the gateway"
GATEWAY_KEYS = "gateway | Give the gateway an account and the keys of the engines"
BACKUP = "backup | Write rig-backup's settings and its cron job"
STRANGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0F2Tym2W1zEq0bbnKzdRNHW3IbpbF0RMGpCZ5OvXnf stranger"
LIBRARY = "$(find /opt/rig/llama.cpp -name 'libggml-base.so*' -type f | head -n 1)"
MODEL = "$(echo /mnt/models/tiny/*/tiny.gguf)"
"""For a shell; the folder is that of the version."""


@dataclass(frozen=True)
class Drift:
    """One way to break a machine, and all its consequences."""

    command: str
    """Breaks the machine, as root."""
    seen_by: dict[str, tuple[str, ...]]
    """Host tests that must fail, by concern."""
    told: set[str]
    """Operations that --dry must report, and no other."""
    needless: set[str] = field(default_factory=set)
    """The subset that an earlier operation of the run may settle, which --dry cannot know: the run does not change
    them."""
    perhaps: set[str] = field(default_factory=set)
    """The subset that the run may or may not change: it waits for the result of an earlier one."""
    restarted: set[str] = field(default_factory=set)
    """Services and containers that the repair restarts, and no other."""
    follows: set[str] = field(default_factory=set)
    """Further operations that the run changes because of an earlier one: --dry cannot know them."""
    refused: str = ""
    """The beginning of the message with which dry run and deploy refuse it; the owner's command is its remedy."""
    owner: str = "true"
    """The owner's command for it."""
    apart_from: set[str] = field(default_factory=set)
    """Operations that cannot repair anything while this is broken."""

    @property
    def tests(self) -> set[str]:
        return {test for tests in self.seen_by.values() for test in tests}

    @property
    def claims(self) -> set[str]:
        """The consequences that no other drift may have at the same time, so that the cause is known."""
        return self.told | self.follows | self.restarted | self.tests | self.apart_from


def _archive(command: str) -> Drift:
    """The files of a native engine are not those of its archive."""
    return Drift(
        command=command,
        seen_by={"engines": ("test_service_has_the_files_of_its_archive_and_nobody_else_changes_them",)},
        told={"engines | Install llama.cpp for llama-8b"},
        follows={"engines | Run llama-8b as a service"},
        restarted={NATIVE},
    )


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
        seen_by={"engines": ("test_engine_runs_now_and_after_a_boot", "test_engine_answers_whoever_has_its_key")},
        told={"engines | Run llama-8b as a service"},
        restarted={NATIVE},
    ),
    "the packet filter's file edited": Drift(
        command="sed -i 's/tcp dport 22/tcp dport 1-65535/' /etc/rig/firewall.nft",
        seen_by={"firewall": ("test_rules_of_the_next_boot_are_those_of_now",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "passwords let in": Drift(
        command="sed -i 's/^PasswordAuthentication no/PasswordAuthentication yes/' /etc/ssh/sshd_config.d/00-rig.conf",
        seen_by={"machine": ("test_only_keys_log_in_where_the_settings_say_so",)},
        told={KEY_LOGINS},
        restarted={"ssh.service"},
    ),
    "the SSH server's file not loaded": Drift(
        command="touch /etc/ssh/sshd_config.d/00-rig.conf",
        seen_by={"machine": ("test_the_ssh_server_runs_with_its_current_file",)},
        told={KEY_LOGINS},
        restarted={"ssh.service"},
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
    "the engines' keys for the gateway readable by everyone": Drift(
        command="chmod 0644 /etc/rig/gateway/engines.map",
        seen_by={"gateway": ("test_keys_of_engines_are_for_the_gateway_and_those_of_clients_for_nobody",)},
        told={GATEWAY_KEYS, GATEWAY},
    ),
    "the gateway's limit of requests lifted by hand": Drift(
        command="sed -i '/gt 0 }$/d' /etc/rig/gateway/haproxy.cfg && systemctl reload rig-gateway.service",
        seen_by={"gateway": ("test_configuration_in_force_is_that_of_the_settings",)},
        told={"gateway | Write /etc/rig/gateway"},
        follows={GATEWAY},
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
    "a package that apt would remove with others": Drift(
        command="apt-mark auto tree",
        seen_by={"machine": ("test_package_stays_when_nothing_else_needs_it",)},
        told={"machine | Install packages"},
    ),
    "unattended-upgrades removed": Drift(
        command="dpkg --remove unattended-upgrades",
        seen_by={"machine": (UPDATES,)},
        told={"machine | Install packages"},
    ),
    "apt's daily timer disabled": Drift(
        command="systemctl disable --now apt-daily.timer",
        seen_by={"machine": (UPDATES,)},
        told={"machine | Run apt-daily.timer"},
    ),
    "apt's timer for upgrades stopped": Drift(
        command="systemctl stop apt-daily-upgrade.timer",
        seen_by={"machine": (UPDATES,)},
        told={"machine | Run apt-daily-upgrade.timer"},
    ),
    "apt's timer for upgrades enabled until the next boot": Drift(
        command="systemctl disable apt-daily-upgrade.timer && systemctl enable --runtime apt-daily-upgrade.timer",
        seen_by={"machine": (UPDATES,)},
        told={"machine | Run apt-daily-upgrade.timer"},
    ),
    "unattended reboots allowed": Drift(
        command='sed -i \'s/Automatic-Reboot "false"/Automatic-Reboot "true"/\' '
        "/etc/apt/apt.conf.d/52rig-unattended-upgrades",
        seen_by={"machine": ("test_only_security_updates_are_installed_unattended",)},
        told={"machine | Write /etc/apt/apt.conf.d/52rig-unattended-upgrades"},
    ),
    "the file of unattended updates removed": Drift(
        command="rm /etc/apt/apt.conf.d/20auto-upgrades",
        seen_by={"machine": (UPDATES,)},
        told={"machine | Write /etc/apt/apt.conf.d/20auto-upgrades"},
    ),
    "the kernel parameters' file removed": Drift(
        command="rm /etc/sysctl.d/60-rig.conf",
        seen_by={"machine": ("test_kernel_parameter_has_its_value_after_a_boot",)},
        told={"machine | Write /etc/sysctl.d/60-rig.conf"},
    ),
    "the journal's file removed": Drift(
        command="rm /etc/systemd/journald.conf.d/60-rig.conf",
        seen_by={"machine": ("test_journal_has_its_limits",)},
        told={"machine | Write /etc/systemd/journald.conf.d/60-rig.conf"},
        follows={"machine | Apply the journal's limits"},
        restarted={"systemd-journald.service"},
    ),
    "a second file of keys": Drift(
        command=f"echo '{STRANGER}' >/home/owner/.ssh/authorized_keys2",
        seen_by={"machine": (KEYS_OF_USERS,)},
        told={"machine | Authorize the keys of owner"},
    ),
    "a second file of keys that is a link": Drift(
        command=f"echo '{STRANGER}' >/srv/keys && ln -s /srv/keys /home/owner/.ssh/authorized_keys2",
        seen_by={"machine": (KEYS_OF_USERS,)},
        told={"machine | Authorize the keys of owner"},
        owner="rm /srv/keys",
    ),
    "a user's authorized keys open to a group": Drift(
        command="chmod 0660 /home/owner/.ssh/authorized_keys",
        seen_by={"machine": (KEYS_GUARDED,)},
        told={"machine | Authorize the keys of owner"},
    ),
    "a user's folder of keys open to everybody": Drift(
        command="chmod 0777 /home/owner/.ssh",
        seen_by={"machine": (KEYS_GUARDED,)},
        told={"machine | Authorize the keys of owner"},
    ),
    "a user's authorized keys given away": Drift(
        command="chown nobody /home/owner/.ssh/authorized_keys",
        seen_by={"machine": (KEYS_GUARDED,)},
        told={"machine | Authorize the keys of owner"},
    ),
    "a home that anybody may write to": Drift(
        command="chmod 0722 /home/owner",
        seen_by={"machine": (KEYS_GUARDED,)},
        told={"machine | Create the user owner"},
    ),
    "a home given away": Drift(
        command="chown root /home/owner",
        seen_by={"machine": (KEYS_GUARDED, "test_user_has_groups_shell_and_home")},
        told={"machine | Create the user owner"},
    ),
    "a user with another shell": Drift(
        command="usermod --shell /bin/sh owner",
        seen_by={"machine": ("test_user_has_groups_shell_and_home",)},
        told={"machine | Create the user owner"},
    ),
    "a later file of kernel parameters": Drift(
        command="echo 'net.core.somaxconn = 77' >/etc/sysctl.d/99-own.conf",
        seen_by={"machine": ("test_kernel_parameter_has_its_value_after_a_boot",)},
        told=set(),
        refused="/etc/sysctl.d/99-own.conf sets net.core.somaxconn to 77",
        owner="rm /etc/sysctl.d/99-own.conf",
    ),
    "a later file of kernel parameters in /usr, with slashes": Drift(
        command="echo '-net/core/somaxconn=77' >/usr/lib/sysctl.d/90-own.conf",
        seen_by={"machine": ("test_kernel_parameter_has_its_value_after_a_boot",)},
        told=set(),
        refused="/usr/lib/sysctl.d/90-own.conf sets net.core.somaxconn to 77",
        owner="rm /usr/lib/sysctl.d/90-own.conf",
    ),
    "a later file of the journal": Drift(
        command="printf '[Journal]\\nSystemMaxUse=9G\\n' >/etc/systemd/journald.conf.d/90-own.conf",
        seen_by={"machine": ("test_journal_has_its_limits",)},
        told=set(),
        refused="/etc/systemd/journald.conf.d/90-own.conf sets SystemMaxUse=9G",
        owner="rm /etc/systemd/journald.conf.d/90-own.conf",
    ),
    "a later file of apt": Drift(
        command="echo 'APT { Periodic { Unattended-Upgrade \"0\"; }; };' >/etc/apt/apt.conf.d/99own",
        seen_by={"machine": (UPDATES,)},
        told=set(),
        refused="/etc/apt/apt.conf.d/99own sets APT::Periodic::Unattended-Upgrade to",
        owner="rm /etc/apt/apt.conf.d/99own",
    ),
    "apt's own file, which is read last": Drift(
        command="echo 'APT::Periodic::Update-Package-Lists \"0\";' >/etc/apt/apt.conf",
        seen_by={"machine": (UPDATES,)},
        told=set(),
        refused="/etc/apt/apt.conf sets APT::Periodic::Update-Package-Lists to",
        owner="rm /etc/apt/apt.conf",
    ),
    "unattended updates from everywhere, in a later file": Drift(
        command="echo 'Unattended-Upgrade::Origins-Pattern { \"origin=*\"; };' >/etc/apt/apt.conf.d/90own",
        seen_by={"machine": ("test_only_security_updates_are_installed_unattended",)},
        told=set(),
        refused="/etc/apt/apt.conf.d/90own has origin=* installed unattended",
        owner="rm /etc/apt/apt.conf.d/90own",
    ),
    "everything that apt does by itself switched off": Drift(
        command="echo 'APT::Periodic::Enable \"0\";' >/etc/apt/apt.conf.d/05own",
        seen_by={"machine": (UPDATES,)},
        told=set(),
        refused="/etc/apt/apt.conf.d/05own sets APT::Periodic::Enable to",
        owner="rm /etc/apt/apt.conf.d/05own",
    ),
    "Rig's folder open to everybody": Drift(
        command="chmod 0777 /etc/rig",
        seen_by={"storage": ("test_rigs_own_folder_is_roots_alone_to_change",)},
        told={"storage | Create /etc/rig"},
    ),
    "the models' folder given away": Drift(
        command="chown nobody /mnt/models",
        seen_by={"storage": ("test_folder_has_owner_and_permissions",)},
        told={"storage | Create /mnt/models"},
    ),
    "the backup's settings edited": Drift(
        command="sed -i 's|/mnt/backup|/mnt/other|' /etc/rig/backup.json",
        seen_by={"backup": ("test_program_is_told_what_the_settings_say",)},
        told={BACKUP},
    ),
    "the backup's cron job open to everybody": Drift(
        command="chmod 0666 /etc/cron.d/rig-backup",
        seen_by={"backup": ("test_cron_asks_at_the_time_of_the_settings_or_never",)},
        told={BACKUP},
    ),
    "cron enabled until the next boot": Drift(
        command="systemctl disable cron.service && systemctl enable --runtime cron.service",
        seen_by={"backup": ("test_cron_runs_now_and_after_a_boot",)},
        told={"backup | Run cron"},
    ),
    "the container engine enabled until the next boot": Drift(
        command="systemctl disable docker.service && systemctl enable --runtime docker.service",
        seen_by={"containers": ("test_container_engine_runs_and_starts_at_boot",)},
        told={"containers | Run the container engine"},
    ),
    "Docker's rules flushed": Drift(
        command="iptables -t nat -F && iptables -F",
        seen_by={"firewall": ("test_other_tables_are_left_to_their_owners",)},
        told={"containers | Run the container engine"},
        restarted={"docker.service"},
    ),
    "Docker's address translation deleted": Drift(
        command="nft delete table ip nat",
        seen_by={"firewall": ("test_other_tables_are_left_to_their_owners",)},
        told={"containers | Run the container engine"},
        restarted={"docker.service"},
    ),
    "every table of the packet filter flushed": Drift(
        command="nft flush ruleset",
        seen_by={
            "firewall": (
                "test_other_tables_are_left_to_their_owners",
                "test_our_table_is_there_exactly_when_the_settings_want_one",
            )
        },
        told={"firewall | Load the packet filter", "containers | Run the container engine"},
        restarted={"docker.service", "rig-firewall.service"},
    ),
    "the vendor's repository believed without a signature": Drift(
        command="echo 'Trusted: yes' >>/etc/apt/sources.list.d/docker.sources",
        seen_by={"containers": ("test_no_package_source_is_believed_without_a_signature",)},
        told={"containers | Write /etc/apt/sources.list.d/docker.sources"},
    ),
    "the key ring open to everybody": Drift(
        command="chmod 0666 /etc/apt/keyrings/docker.asc",
        seen_by={"containers": ("test_vendors_repository_is_checked_with_a_key_ring_of_its_own",)},
        told={"containers | Write /etc/apt/keyrings/docker.asc"},
    ),
    "the folder of the engines' keys open to everybody": Drift(
        command="chmod 0755 /etc/rig/keys",
        seen_by={"secrets": ("test_folder_of_engines_keys_is_roots_alone",)},
        told={"secrets | Write /etc/rig/keys.env"},
    ),
    "a service's own key readable by everyone": Drift(
        command="chmod 0644 /etc/rig/keys/llama-8b",
        seen_by={"secrets": ("test_services_own_key_file_is_its_key_and_roots_alone",)},
        told={"secrets | Write /etc/rig/keys.env"},
    ),
    "the keys given away": Drift(
        command="chown owner /etc/rig/keys.env",
        seen_by={"secrets": ("test_store_of_keys_is_roots_alone",)},
        told={"secrets | Write /etc/rig/keys.env"},
    ),
    "a model given away": Drift(
        command=f"chown owner {MODEL}",
        seen_by={"models": ("test_model_can_be_read_by_engines_and_changed_by_root_alone",)},
        told={"models | Start fetching the models", "models | Fetch the models"},
        perhaps={"models | Fetch the models"},
    ),
    "the manifest open to everybody": Drift(
        command="chmod 0666 /etc/rig/models.json",
        seen_by={"models": ("test_manifest_can_be_changed_by_root_alone",)},
        told={"models | Write /etc/rig/models.json"},
    ),
    "models read no more from time to time": Drift(
        command="systemctl disable --now rig-models-scrub.timer",
        seen_by={"models": ("test_models_are_read_again_from_time_to_time",)},
        told={"models | Schedule the model scrub"},
    ),
    "a byte of a library flipped": _archive(f"printf X | dd of={LIBRARY} bs=1 seek=5000 conv=notrunc status=none"),
    "a library given away": _archive(f"chown owner {LIBRARY}"),
    "a library that anybody may write to": _archive(f"chmod 0666 {LIBRARY}"),
    "a library more": _archive(f"cp {LIBRARY} $(dirname {LIBRARY})/libextra.so"),
    "the folder of the programs open to everybody": _archive("chmod 0777 /opt/rig/llama.cpp"),
    "a service stopped": Drift(
        command=f"systemctl stop {NATIVE}",
        seen_by={"engines": ("test_engine_runs_now_and_after_a_boot", "test_engine_answers_whoever_has_its_key")},
        told={"engines | Run llama-8b as a service"},
        restarted={NATIVE},
    ),
    "a service that does not start at boot": Drift(
        command=f"systemctl disable {NATIVE}",
        seen_by={"engines": ("test_engine_runs_now_and_after_a_boot",)},
        told={"engines | Run llama-8b as a service"},
    ),
    "a container that does not start at boot": Drift(
        command=f"systemctl disable {CONTAINER}",
        seen_by={"engines": ("test_engine_runs_now_and_after_a_boot",)},
        told={"engines | Run llama-70b in a container"},
    ),
    "a container removed": Drift(
        command="docker rm --force rig-llama-70b",
        seen_by={
            "containers": ("test_only_containers_of_the_settings_run",),
            "engines": ("test_engine_answers_whoever_has_its_key",),
        },
        told={"engines | Run llama-70b in a container"},
        restarted={CONTAINER, "container rig-llama-70b"},
    ),
    "a container made by hand, with the same labels and all privileges": Drift(
        command="image=$(docker inspect --format '{{.Config.Image}}' rig-llama-70b) && "
        "docker inspect --format '{{range $key, $value := .Config.Labels}}{{println $key \"=\" $value}}{{end}}' "
        "rig-llama-70b | sed 's/ = /=/; /^$/d' >/run/labels && docker rm --force rig-llama-70b && "
        "docker run --detach --name rig-llama-70b --privileged --label-file /run/labels --entrypoint sleep "
        "--stop-timeout 1 $image infinity && rm /run/labels",
        seen_by={
            "containers": ("test_container_is_hardened", "test_container_is_published_on_loopback_alone"),
            "engines": ("test_engine_answers_whoever_has_its_key",),
        },
        told={"engines | Run llama-70b in a container"},
        restarted={CONTAINER, "container rig-llama-70b"},
    ),
    "a container on another network": Drift(
        command="docker network create other && docker network connect other rig-llama-70b",
        seen_by={"containers": ("test_container_is_on_its_own_network_and_no_other",)},
        told={"engines | Run llama-70b in a container"},
        restarted={CONTAINER, "container rig-llama-70b"},
        owner="docker network rm other",
    ),
    # Stands for all that `docker update` changes: not every kernel can limit a container's memory.
    "a container that Docker keeps running": Drift(
        command="docker update --restart always rig-llama-70b",
        seen_by={"containers": ("test_container_is_started_again_after_a_failure_alone",)},
        told={"engines | Run llama-70b in a container"},
        restarted={CONTAINER, "container rig-llama-70b"},
    ),
    "a service masked": Drift(
        command=f"systemctl stop {NATIVE} && systemctl disable {NATIVE} && systemctl mask {NATIVE}",
        seen_by={"engines": ("test_engine_runs_now_and_after_a_boot", "test_engine_answers_whoever_has_its_key")},
        told=set(),
        refused=f"{NATIVE} is masked, so that nothing starts it; unmask it (sudo systemctl unmask {NATIVE})",
        owner=f"systemctl unmask {NATIVE} && systemctl enable --now {NATIVE}",
    ),
    "node_exporter masked": Drift(
        command=f"systemctl mask --now {NODE_EXPORTER}",
        seen_by={"monitoring": (PROGRAM,)},
        told=set(),
        refused=f"{NODE_EXPORTER} is masked, so that nothing starts it; unmask it (sudo systemctl unmask",
        owner=f"systemctl unmask {NODE_EXPORTER} && systemctl start {NODE_EXPORTER}",
    ),
    "a service's memory changed until the next boot": Drift(
        command=f"systemctl set-property --runtime {NATIVE} MemoryMax=7G",
        seen_by={"machine": (UNITS_OF_RIG,)},
        told=set(),
        refused=f"/run/systemd/system.control/{NATIVE}.d/50-MemoryMax.conf changes {NATIVE}",
        owner=f"rm -r /run/systemd/system.control/{NATIVE}.d && systemctl daemon-reload",
    ),
    "a service's memory changed for good": Drift(
        command=f"systemctl set-property {NATIVE} MemoryMax=7G",
        seen_by={"machine": (UNITS_OF_RIG,)},
        told=set(),
        refused=f"/etc/systemd/system.control/{NATIVE}.d/50-MemoryMax.conf changes {NATIVE}",
        owner=f"rm -r /etc/systemd/system.control/{NATIVE}.d && rmdir /etc/systemd/system.control && "
        "systemctl daemon-reload",
    ),
    "a service's limits overridden": Drift(
        command=f"printf '[Service]\\nMemoryMax=7G\\n' >/etc/systemd/system/{NATIVE}.d/own.conf && "
        "systemctl daemon-reload",
        seen_by={
            "engines": ("test_service_has_the_limits_of_the_settings",),
            "machine": (UNITS_OF_RIG,),
        },
        told=set(),
        refused=f"/etc/systemd/system/{NATIVE}.d/own.conf changes {NATIVE}",
        owner=f"rm /etc/systemd/system/{NATIVE}.d/own.conf && systemctl daemon-reload",
    ),
    "the monitoring's limits overridden": Drift(
        command="printf '[Service]\\nMemoryMax=7G\\n' >/etc/systemd/system/prometheus.service.d/zz-own.conf && "
        "systemctl daemon-reload",
        seen_by={
            "machine": (UNITS_OF_RIG,),
            "monitoring": ("test_program_has_the_memory_of_the_settings",),
        },
        told=set(),
        refused="/etc/systemd/system/prometheus.service.d/zz-own.conf changes prometheus.service",
        owner="rm /etc/systemd/system/prometheus.service.d/zz-own.conf && systemctl daemon-reload",
    ),
    "our table deleted": Drift(
        command="nft delete table inet rig",
        seen_by={"firewall": ("test_our_table_is_there_exactly_when_the_settings_want_one",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "everything let in": Drift(
        command="nft chain inet rig input '{ policy accept; }'",
        seen_by={"firewall": ("test_what_is_not_opened_is_dropped",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "everything forwarded": Drift(
        command="nft insert rule inet rig forward accept",
        seen_by={"firewall": ("test_only_answers_are_forwarded_to_containers_before_they_are_closed",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "a chain flushed": Drift(
        command="nft flush chain inet rig forward",
        seen_by={"firewall": ("test_every_network_of_containers_is_closed_to_neighbours",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "the packet filter's file open to everybody": Drift(
        command="chmod 0666 /etc/rig/firewall.nft",
        seen_by={"firewall": ("test_rules_come_back_after_a_boot",)},
        told={"firewall | Load the packet filter"},
        restarted={"rig-firewall.service"},
    ),
    "the packet filter loaded until the next boot": Drift(
        command="systemctl disable rig-firewall.service && systemctl enable --runtime rig-firewall.service",
        seen_by={"firewall": ("test_rules_come_back_after_a_boot",)},
        told={"firewall | Load the packet filter"},
    ),
    "node_exporter stopped": Drift(
        command=f"systemctl stop {NODE_EXPORTER}",
        seen_by={"monitoring": (PROGRAM,)},
        told={"monitoring | Run node_exporter"},
        restarted={NODE_EXPORTER},
    ),
    "node_exporter enabled until the next boot": Drift(
        command=f"systemctl disable {NODE_EXPORTER} && systemctl enable --runtime {NODE_EXPORTER}",
        seen_by={"monitoring": (PROGRAM,)},
        told={"monitoring | Run node_exporter"},
    ),
    "Prometheus stopped": Drift(
        command="systemctl stop prometheus.service",
        seen_by={"monitoring": (PROGRAM,)},
        told={"monitoring | Run Prometheus"},
        restarted={"prometheus.service"},
    ),
    "Prometheus not started at boot": Drift(
        command="systemctl disable prometheus.service",
        seen_by={"monitoring": (PROGRAM,)},
        told={"monitoring | Run Prometheus"},
    ),
    "Alertmanager not started at boot": Drift(
        command="systemctl disable prometheus-alertmanager.service",
        seen_by={"monitoring": (PROGRAM,)},
        told={"monitoring | Run Alertmanager"},
    ),
    "the monitoring's files open to everybody": Drift(
        command="chmod 0666 /etc/rig/prometheus/rules.yml",
        seen_by={"monitoring": ("test_configuration_can_be_changed_by_root_alone_and_holds_no_key",)},
        told={"monitoring | Write /etc/rig/prometheus", "monitoring | Run Prometheus"},
    ),
    "a copy of a key replaced": Drift(
        command="echo wrong >/etc/rig/prometheus-keys/llama-8b",
        seen_by={"monitoring": (COPIES,)},
        told={"monitoring | Give Prometheus the keys of the engines"},
    ),
    "the figures' timer enabled until the next boot": Drift(
        command="systemctl disable rig-metrics.timer && systemctl enable --runtime rig-metrics.timer",
        seen_by={"monitoring": ("test_what_no_program_shows_is_looked_up_as_often_as_the_settings_say",)},
        told={"monitoring | Run the rig-metrics timer"},
    ),
}
