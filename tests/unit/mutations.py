"""Wrong settings, a line each: the key, the wrong value, and a part of the message that refuses it.

A new line is a new test. The key is a path in all.yml, its steps divided by spaces, because keys may hold dots; the
value is YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Mutation = tuple[str, Any, str]

UNSEEN = ["a\nb", "a\0b", "a\tb", "a\rb", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b", "a\u202eb", "a\ufeffb"]
"""Texts that a program may read as two lines, as the end of a text, or as another text than the visible one."""

TEXTS = [
    "machine timezone",
    "machine hardware ram",
    "machine hardware gpu name",
    "machine packages 0",
    "machine sysctl kernel.core_pattern",
    "machine journald max_use",
    "machine journald max_retention",
    "machine security_updates blocklist 0",
    "machine users owner shell",
    "machine users owner groups 0",
    "machine users owner authorized_keys 0",
    "storage system_free",
    "storage models path",
    "storage models owner",
    "storage models mode",
    "storage backup mount source",
    "storage backup mount options 0",
    "gpu driver repository",
    "gpu driver key_fingerprints 0",
    "gpu toolkit version",
    "containers version",
    "containers vendor repository",
    "containers daemon data-root",
    "secrets consumers 0",
    "models hub",
    "models catalogue llama-3.3-70b-q4 file",
    "models catalogue llama-3.3-70b-q4 repository",
    "models catalogue llama-3.3-70b-q4 revision",
    "engines llama-70b address",
    "engines llama-70b image",
    "engines llama-70b model",
    "engines llama-70b arguments 0",
    "engines llama-8b archive url",
    "engines llama-8b archive binary",
    "engines vllm-8b arguments 0",
    "firewall ssh networks 0",
    "gateway body request",
    "gateway remote networks 0",
    "gateway remote names 0",
    "gateway remote interface",
    "monitoring scrape_interval",
    "monitoring certificates 0",
    "monitoring grafana image",
    "monitoring receivers phone url",
    "monitoring receivers mail to",
    "monitoring receivers mail user",
    "monitoring receivers mail server",
    "backup schedule time",
    "backup paths 0",
]
"""Every kind of text in the settings."""


def invisible() -> Iterator[Mutation]:
    """Each kind of text with each invisible character, also at the end of a correct value."""
    for number, key in enumerate(TEXTS):
        for text in (UNSEEN[number % len(UNSEEN)], UNSEEN[(number + 5) % len(UNSEEN)], f"{RIGHT.get(key, 'x')}\n"):
            yield key, text, "; write it in one line, of visible characters"


RIGHT = {
    "machine timezone": "Etc/UTC",
    "machine sysctl kernel.core_pattern": "core",
    "machine security_updates blocklist 0": "postgresql",
    "machine packages 0": "tree",
    "storage models path": "/srv/models",
    "firewall ssh networks 0": "10.0.0.0/8",
    "engines llama-70b address": "127.0.0.1",
    "engines llama-70b arguments 0": "--no-warmup",
    "monitoring receivers phone url": "https://example.org",
    "models hub": "https://example.org",
}

ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIMGR3kYqpb+t/sxtB5Eq/9zf9q1vdjzdQT3ABGfrln2Z"
KEYS = "machine users owner authorized_keys 0"
SSH = "firewall ssh networks 0"
LLAMA = "engines llama-70b arguments"
VLLM = "engines vllm-8b arguments"
DAEMON = "containers daemon"
CATALOGUE = "models catalogue llama-3.1-8b-q4"
IMAGE = f"example.org/llama:server@sha256:{'d' * 64}"

INJECTED: list[Mutation] = [
    ("machine sysctl vm.swappiness", "10\nkernel.core_pattern = |/nowhere", "holds a line break"),
    ("machine sysctl vm.swappiness", " 10", "write it without spaces around it"),
    ("machine sysctl vm.swappiness", "", "write it without spaces around it"),
    ("machine sysctl vm.swappiness", [10], "must be a whole number, text or null"),
    ("machine sysctl kernel.//.//.etc", 1, "is not a kernel parameter"),
    ("machine sysctl kernel./x", 1, "is not a kernel parameter"),
    (SSH, "fe80::1%}; flush ruleset; #", "names a network interface, which the packet filter does not take"),
    (SSH, "fe80::1%eth0", "write 'fe80::1'"),
    (SSH, "fe80::%eth0/10", "names a network interface"),
    (SSH, "10.0.0.0/8%eth0", "names a network interface"),
    ("firewall allow web networks 0", "fd00::1%a b", "names a network interface"),
    ("firewall containers web networks 0", "fd00::1%a b", "names a network interface"),
    ("machine security_updates blocklist 0", 'x"; APT::Get::AllowUnauthenticated "1', "is not a package pattern"),
    ("machine security_updates blocklist 0", "x;y", "is not a package pattern"),
    ("machine security_updates blocklist 0", "x'y", "is not a package pattern"),
    ("engines llama-8b archive url", "https://example.org/$(reboot).tar.gz", "is not a web address"),
    ("engines llama-8b archive url", "https://example.org/`reboot`", "is not a web address"),
    ("engines llama-8b archive binary", "a/$(reboot)", "is not a path inside the archive"),
    ("monitoring receivers phone url", "https://:99999", "has no usable host or port"),
    ("monitoring receivers phone url", "https://example.org:99999", "has no usable host or port"),
    ("monitoring receivers phone url", "https://[::1", "has no usable host or port"),
    ("monitoring receivers phone url", "https://a..b/x", "has no usable host or port"),
    ("monitoring receivers mail server", "mail.example.org:70000", "has no usable port"),
    ("monitoring receivers mail server", "-x:25", "is not a server with its port"),
    ("engines llama-70b image", f"a//b:::@sha256:{'d' * 64}", "is not an image with its digest"),
    ("engines llama-70b image", f"a:b:c@sha256:{'d' * 64}", "is not an image with its digest"),
    ("engines llama-70b image", f"-v/:/x@sha256:{'d' * 64}", "is not an image with its digest"),
    (f"{DAEMON} labels", ["a", "a\nb"], "holds a line break"),
    (f"{DAEMON} log-opts", {"tag": "a\x7fb"}, "holds the invisible character U+007F"),
    (f"{DAEMON} log-opts", {"tag\u2028": "a"}, "holds U+2028; write visible letters"),
    (f"{DAEMON} default-ulimits", {"nofile": {"Name": "a\0"}}, "holds the invisible character U+0000"),
]

NOBODYS_FOLDERS = """
/etc /usr /proc /sys /dev /dev/shm /tmp /tmp/models /var/tmp/x /run /run/models /boot /bin /sbin /lib /lib64 /lib/models
/usr/share/models /usr/local /etc/rig /etc/rig/models /var/lib/rig /var/lib/rig/models /var/lib/docker
/var/lib/docker/volumes/x
/var/lib/containerd /opt/rig /opt/rig/llama.cpp /opt/rig/x /var/lib/prometheus /var/lib/grafana
/var/log /var/cache/models /var/spool /var/backups /var/lib/dpkg /var/lib/apt /var/lib/systemd /var/run/x /var/lock
/lost+found /snap /var /var/lib /opt /mnt /media /srv /home /root /proc/1 /efi /var/lib/private/x
"""
"""Folders of the system, of Rig, of the container engine, and those that a sandbox hides."""


def folders() -> Iterator[Mutation]:
    """Each folder, for models and for backups."""
    for folder in NOBODYS_FOLDERS.split():
        for place in ("models", "backup"):
            yield f"storage {place} path", folder, "; write a folder of its own, such as /mnt/models or /srv/models"


STORAGE: list[Mutation] = [
    *(("storage models mode", mode, "keeps the owner out") for mode in ("0000", "0055", "0455", "0655", "000")),
    *(
        ("storage models mode", mode, "lets everybody write")
        for mode in ("0777", "1777", "0757", "2777", "0772", "777")
    ),
    *(("storage models mode", mode, "has the set-user-ID bit") for mode in ("7777", "4755", "6755")),
    *(("storage models mode", mode, "keeps out engine llama-8b") for mode in ("0700", "0750", "0754")),
    *(
        ("storage models mode", mode, "is not a file mode")
        for mode in ("888", "75", "00755", "u=rwx", "0o755", "0x1ff")
    ),
    ("storage backup mode", "0777", "lets everybody write"),
    ("storage backup mode", "7777", "has the set-user-ID bit"),
    ("storage backup mode", "0000", "keeps the owner out"),
    *(("storage backup mode", mode, "lets everybody look into the backup") for mode in ("0755", "0704", "0701")),
    *((f"storage {place} owner", name, "own nothing") for place in ("models", "backup") for name in ("nobody", "_apt")),
    *((f"storage {place} group", "nogroup", "own nothing") for place in ("models", "backup")),
    *(
        (f"storage {place} mount", {"source": "LABEL=x", "options": ["noatime", option]}, "does not go with a folder")
        for place in ("models", "backup")
        for option in ("ro", "RO", "remount", "bind", "noauto", "user", "norecovery")
    ),
    ("storage models path", "/mnt/" + "-" * 100, "too long for the name of a mount"),
    ("storage models path", "/mnt/" + "x" * 300, "is not an absolute path"),
    ("storage models path", "/mnt/models/../x", "is not an absolute path"),
    ("storage models path", "/mnt/a%b", "is not an absolute path"),
    ("backup paths 0", "/proc", "in memory only and made up while it is read"),
    ("backup paths 0", "/sys/kernel", "in memory only"),
    ("backup paths 0", "/dev", "in memory only"),
    ("backup paths 0", "/run/user", "in memory only"),
    ("backup paths 0", "/mnt/backup", "hold each other"),
]

PEOPLE: list[Mutation] = [
    *(("machine packages 0", name, "ends in a mark of apt's") for name in ("curl-", "htop+", "jq.", "tmux+-", "g-+")),
    *(
        ("machine packages 0", name, "is not a package name")
        for name in ("-y", "Htop", "htop=1", "htop/sid", "a*", "x")
    ),
    *(
        ("machine packages 0", name, "containers.source: vendor removes it")
        for name in ("docker.io", "docker-cli", "docker-compose", "podman-docker", "containerd", "runc")
    ),
    *(("machine packages 0", name, "installs it by itself") for name in ("docker-ce", "containerd.io")),
    *(
        ("machine packages 0", name, "gpu installs the driver")
        for name in ("nvidia-driver", "nvidia-open", "cuda-drivers")
    ),
    *(
        (f"machine users {name}", {}, "is the account of a program")
        for name in (
            "nobody",
            "_apt",
            "www-data",
            "daemon",
            "bin",
            "systemd-network",
            "rig-native",
            "_x",
            "sshd",
            "mail",
        )
    ),
    *(
        (f"machine users {name}", {}, "is not a user or group name")
        for name in ("Owner", "1a", "a$b", "x" * 33, "ü", "a/b")
    ),
    *(
        (f"machine users {name} shell", shell, "lets nobody log in")
        for name in ("root", "owner")
        for shell in ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/true", "/bin/sync", "/dev/null")
    ),
    (KEYS, "ssh-ed25519 " + "A" * 68, "is cut off or altered"),
    (KEYS, f"ssh-ed25519 {ED25519[:-4]}", "is cut off or altered"),
    (KEYS, f"ssh-ed25519 {ED25519[:-8]}AAAA", "is cut off or altered"),
    (KEYS, f"ssh-ed25519 {ED25519}AAAA", "is cut off or altered"),
    (KEYS, f"ssh-ed25519 {ED25519}=", "is cut off or altered"),
    (KEYS, f"ssh-rsa {ED25519} x", "and ssh-rsa stands before it"),
    (KEYS, f"ecdsa-sha2-nistp256 {ED25519} x", "and ecdsa-sha2-nistp256 stands before it"),
    (KEYS, f"sk-ssh-ed25519@openssh.com {ED25519} x", "stands before it"),
    (KEYS, f"ssh-dss {ED25519}", "is not an SSH public key"),
    (KEYS, f"ssh-ed25519  {ED25519}", "is not an SSH public key"),
    (KEYS, f"sk-other {ED25519}", "is not an SSH public key"),
    (KEYS, f"ecdsa-sha2-nistp999 {ED25519}", "is not an SSH public key"),
    (KEYS, f"ssh-ed25519 {ED25519} a\nssh-ed25519 {ED25519} b", "holds a line break"),
    # Made by hand: a curve of another name inside, a point that is too short, 31 bytes, 512 bits, an even exponent.
    (KEYS, "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAzODQAAAAEBAQEBA==", "is no whole key"),
    (KEYS, "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAAAEBAQEBA==", "is no whole key"),
    (KEYS, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAHwEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "is no whole key"),
    (KEYS, f"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQ{'D' + '/' * 85}==", "; copy the line"),
    (KEYS, f"ssh-rsa AAAAB3NzaC1yc2EAAAABAgAAAEEA{'/' * 86}==", "; copy the line"),
]

KERNEL: list[Mutation] = [
    ("machine sysctl vn.swappiness", 10, "begin it with 'abi'"),
    ("machine sysctl kernal.pid_max", 10, "write kernel.pid_max"),
    ("machine sysctl nett.core.somaxconn", 1, "write net.core.somaxconn"),
    ("machine sysctl zzz.x", 1, "is not a kernel parameter"),
    ("machine sysctl swappiness", 1, "is not a kernel parameter"),
    ("machine sysctl vm/swappiness", 1, "is not a kernel parameter"),
    ("machine sysctl vm.swappiness=1", 1, "is not a kernel parameter"),
    ("machine sysctl -vm.swappiness", 1, "is not a kernel parameter"),
    ("machine sysctl vm.swappiness", 1.5, "must be a whole number, text or null"),
    *(
        ("machine security_updates blocklist 0", pattern, "is not a regular expression")
        for pattern in (
            "[",
            "(",
            "*",
            "a{2,1}",
            "(?P<n",
            "a**",
            "\\",
            "(?<x)",
            "[z-a]",
            "+x",
            "a{99999999999999999999}",
        )
    ),
    *(
        ("machine security_updates blocklist 0", pattern, "matches every package")
        for pattern in (".*", ".", "a*", "[a-z0-9]", "x?", "^", "(?:)")
    ),
]

COUNTED: list[Mutation] = [
    *(
        (f"monitoring {key}", value, "write ")
        for key, values in {
            "scrape_interval": ("99999999w", "5m", "6m", "301s", "1h", "1d", "0s", "15", "15ms", "-1s"),
            "state_interval": ("2d", "99999999w", "25h"),
            "prometheus retention_time": ("300000d", "99999999w", "3651d", "1s", "60000w", "23h"),
            "prometheus retention_size": ("1K", "127M", "999999T"),
            "prometheus memory": ("1K", "1M", "127M", "2T", "999999T"),
            "node_exporter memory": ("1K", "31M", "2T"),
            "alertmanager memory": ("1K", "63M", "2T"),
            "alertmanager group_wait": ("2d", "99999999w"),
            "alertmanager group_interval": ("2d", "99999999h"),
            "alertmanager repeat_interval": ("6d", "99999999w", "200h", "1s"),
            "grafana memory": ("1K", "100M"),
            "alerts pending": ("2d", "99999999w", "106752d"),
            "alerts engine_down": ("2d", "99999999d"),
            "alerts backup_age": ("3651d", "99999999w", "1s"),
            "alerts certificate_end": ("3651d", "99999999w"),
            "alerts reboot_pending": ("366d", "99999999w"),
            "alerts queue": (0, 10**7, 2**62),
            "thermal interval": (0, 10**6),
        }.items()
        for value in values
    ),
    *(
        ("machine journald max_retention", span, "write one such as 90day")
        for span in ("99999999week", "1s", "101year", "9999999999year", "90days", "0day", "90")
    ),
    *(("machine journald max_use", size, "write ") for size in ("1K", "15M", "999999T", "1000000T", "2GB")),
    *(("storage system_free", size, "write ") for size in ("101T", "999999T")),
    *(("models download rate", size, "write ") for size in ("1K", "99K", "2T")),
    *(
        (f"engines {engine} cpus", cpus, "such a number")
        for engine in ("llama-70b", "llama-8b", "vllm-8b")
        for cpus in (1e-6, 0, -1, 1e308, 1025, 0.001)
    ),
    *(
        (f"engines llama-70b {key}", 2**62, "such a number")
        for key in ("context", "sequences", "threads", "gpu_layers")
    ),
    *(("engines llama-70b memory", size, "write ") for size in ("1K", "63M", "1M", "999999T")),
    ("engines vllm-8b gpu_utilization", 1e-6, "must be at least 0.05"),
    ("engines vllm-8b gpu_utilization", 1.01, "must be at most 1"),
    (
        "engines qwen3-vl-4b",
        {"context": 100_000_000, "sequences": 256},
        "than the 2147483647 that llama-server can count",
    ),
    ("engines llama-70b", {"context": 8_400_000, "sequences": 256}, "write 8388607 or less"),
    ("engines llama-8b", {"context": 100_000_000, "sequences": 22}, "can count"),
    *(
        (f"machine hardware {key}", value, "such a number")
        for key in ("cpu_compute", "ram_bandwidth")
        for value in (1e-300, 0, -1, 1e308, 1e-6)
    ),
    *(
        (f"machine hardware gpu {key}", value, "such a number")
        for key in ("bandwidth", "compute", "compute_8bit")
        for value in (1e-300, 0, 1e308)
    ),
    ("machine hardware cores", 2**62, "must be at most 4096"),
    ("machine hardware ram_reserve", "128G", "leaves nothing of the 128G"),
    ("machine hardware ram_reserve", "1T", "leaves nothing of the 128G"),
    *((f"{CATALOGUE} {key}", 2**62, "must be at most") for key in ("size",)),
    *(
        (f"{CATALOGUE} shape {key}", 2**62, "must be at most")
        for key in ("layers", "kv_heads", "head_dim", "hidden", "vocabulary", "parameters")
    ),
    (f"{CATALOGUE} file", "x" * 250, "is not a path inside the repository"),
    (f"{CATALOGUE} repository", "a/..", "is not a repository of the hub"),
    (f"{CATALOGUE} repository", "a/" + "b" * 300, "is not a repository of the hub"),
    ("machine hardware gpu name", "x" * 201, "write 200 at most"),
    (f"engines {'x' * 41}", {"runtime": "native"}, "is not a usable name"),
    (f"monitoring receivers {'x' * 300}", {"kind": "webhook", "url": "https://a"}, "is not a usable name"),
    ("monitoring receivers nobody", {"kind": "webhook", "url": "https://a"}, "give the receiver another name"),
]

OWN_LLAMA = """
-m --model -mm --mmproj -a --alias --host --port -c --ctx-size --ctx_size -np --parallel -t --threads -ngl --gpu-layers
--n-gpu-layers --n_gpu_layers --gpu_layers -ctk --cache-type-k --cache_type_k -ctv --cache-type-v --cache_type_v
--api-key --api_key --api-key-file --api_key_file --fit -fit --metrics --no-slots --no_slots
--ctx-size=1 --ctx_size=1 --api-key=x --api_key=x --port=1 -c=1 --host=0.0.0.0
"""
NEVER_LLAMA = """
-hf -hfr --hf-repo --hf_repo -hff --hf-file -hft --hf-token -dr --docker-repo --docker_repo -mu --model-url --model_url
-mmu --mmproj-url --mmproj_url -hfd --hf-repo-draft -md --model-draft --spec-draft-model --models-dir --models_dir
--models-preset --models-max --models-autoload --slots --slot-save-path --slot_save_path --props --lora --lora-scaled
--lora_scaled --control-vector --fit-target -fitt --fit-ctx -dev --device --rpc --tools --agent -ag --mcp-servers-json
--ui-mcp-proxy --ssl-key-file --ssl-cert-file --api-prefix --reuse-port --path --media-path --log-prompts-dir --help -h
--version --list-devices --completion-bash --gpt-oss-20b-default --gpt_oss_20b_default --fim-qwen-7b-spec
--embd-gemma-default --override-kv --no-mmproj --hf-repo=a/b --lora=x --slots=1 --models-dir=/x --spec-default
"""
OWN_VLLM = """
--model --served-model-name --served_model_name --host --port --max-model-len --max_model_len --max-model --max-mod
--max-num-seqs --max-num --max --gpu-memory-utilization --gpu-mem --gpu --kv-cache-dtype --kv-cache-d
--kv_cache_dtype=fp8 --api-key --api-k --api_key=x --max-model=1 --max-model-len=1 --port=1 --hos --por --served
"""
NEVER_VLLM = """
--quantization --quant --quantization=fp8 -q -qfp8 -q=fp8 --trust-remote-code --trust-remote --trust_remote_code --trust
--config --conf --config=/x --download-dir --download --revision --rev --code-revision --tokenizer-revision --tokenizer
--hf-token --hf-overrides --hf-overrides.x --hf_overrides=x --load-format --load --speculative-config
--speculative-config.method --enable-lora --lora-modules --middleware --tool-parser-plugin --logits-processors
--worker-extension-cls --worker-cls --kv-transfer-config --ssl-keyfile --ssl-certfile --uds --headless --grpc --help -h
--version -v --disable-log-stats --kv-cache-memory-bytes --num-gpu-blocks-override --master-addr --root-path
"""

ARGUMENTS: list[Mutation] = [
    *((f"{LLAMA} 0", word, "is already passed") for word in OWN_LLAMA.split()),
    *((f"{LLAMA} 0", word, "must not be passed") for word in NEVER_LLAMA.split()),
    *(
        (f"{LLAMA} 0", word, "which llama.cpp does not take")
        for word in ("--seed=1", "--temp=0.1", "-s=1", "--batch_size=1", "--flash-attn=on")
    ),
    *((f"{LLAMA} 0", word, "is no option") for word in ("-", "--", "---")),
    *((LLAMA, words, "begins with") for words in (["x"], ["1", "--seed"], ["model.gguf"], ["-1"])),
    *((f"{LLAMA} 0", word, "is not an argument") for word in ("a b", "$HOME", "%h", "'x'", '"x"', "a\\b")),
    *((f"{VLLM} 0", word, "is already passed") for word in OWN_VLLM.split()),
    *((f"{VLLM} 0", word, "must not be passed") for word in NEVER_VLLM.split()),
    *((f"{VLLM} 0", word, "is no option") for word in ("-", "--")),
    *((VLLM, words, "begins with") for words in (["other/model"], ["8"])),
]

DOCKER: list[Mutation] = [
    (f"{DAEMON} hosts", ["tcp://0.0.0.0:2375"], "opens Docker, and so the whole machine"),
    (f"{DAEMON} hosts", [], "opens Docker"),
    (f"{DAEMON} hosts", "tcp://0.0.0.0:2375", "must be a list"),
    *((f"{DAEMON} {key}", False, "; remove it") for key in ("iptables", "ip6tables", "ip-forward", "ip-masq")),
    *((f"{DAEMON} {key}", True, "; remove it") for key in ("allow-direct-routing", "tls", "tlsverify", "rootless")),
    *(
        (f"{DAEMON} {key}", value, "; remove it")
        for key, value in {
            "bridge": "none",
            "api-cors-header": "*",
            "metrics-addr": "0.0.0.0:9323",
            "seccomp-profile": "unconfined",
            "default-ipc-mode": "host",
            "default-cgroupns-mode": "host",
            "exec-root": "/x",
            "pidfile": "/x",
            "containerd": "/x",
            "tlscert": "/x",
            "validate": True,
        }.items()
    ),
    (f"{DAEMON} metrics-addr", ":9323", "; remove it"),
    (f"{DAEMON} metrics-addr", "192.168.1.2:9323", "; remove it"),
    (f"{DAEMON} features", {"cdi": False}, "keeps containers from the graphics card"),
    (f"{DAEMON} cdi-spec-dirs", [], "keeps containers from the graphics card"),
    (f"{DAEMON} cdi-spec-dirs", ["/etc/cdi"], "keeps containers from the graphics card"),
    (f"{DAEMON} authorization-plugins", ["x"], "; remove it"),
    *(
        (f"{DAEMON} {key}", 1, f"write '{meant}'")
        for key, meant in {
            "iptable": "iptables",
            "live_restore": "live-restore",
            "log-drivers": "log-driver",
            "host": "hosts",
            "registry-mirror": "registry-mirrors",
            "data_root": "data-root",
            "storage-drive": "storage-driver",
            "LiveRestore": "live-restore",
        }.items()
    ),
    *(
        (f"{DAEMON} {key}", value, "or remove the key")
        for key, value in {
            "live-restore": "yes",
            "iptables": "false",
            "debug": 1,
            "log-driver": True,
            "log-opts": [],
            "max-concurrent-downloads": "3",
            "mtu": True,
            "dns": "1.1.1.1",
            "features": [],
            "default-shm-size": False,
            "registry-mirrors": {},
            "shutdown-timeout": 1.5,
            "data-root": 1,
            "experimental": None,
            "storage-opts": {"x": "y"},
        }.items()
    ),
    (f"{DAEMON} log-opts", {"max-size": 10}, "must be text, in quotes"),
    (f"{DAEMON} log-opts", {"labels": ["a"]}, "must be text, in quotes"),
    (f"{DAEMON} dns", [1], "must be text, in quotes"),
    (f"{DAEMON} features", {"cdi": "true"}, "must be true or false"),
    (f"{DAEMON}", [], "must be a mapping"),
]

MESSAGES: list[Mutation] = [
    ("engines llama-70b memory", 64, "'64' is not a size; write a whole number"),
    ("storage system_free", 10, "'10' is not a size; write a whole number"),
    ("monitoring scrape_interval", 15, "'15' is not a duration; write a whole number"),
    ("backup schedule time", 3, "'3' is not a time of day"),
    ("firewall ssh networks 0", 10, "'10' is not a network"),
    ("machine ssh keys_only", "yes", "must be true or false"),
    ("machine ssh keys_only", 1, "must be true or false"),
    ("firewall ssh port", "99999", "must be at most 65535, not 99999"),
    ("firewall containers web", {"port": 0, "networks": ["10.0.0.0/8"]}, "must be at least 1, not 0"),
    ("firewall containers web", {"port": 3001, "networks": []}, "at least 1"),
    ("firewall containers web", {"networks": ["10.0.0.0/8"]}, "is missing"),
    ("firewall containers web", {"port": 1, "protocol": "sctp", "networks": ["fd00::/8"]}, "must be 'tcp' or 'udp'"),
    ("engines llama-70b port", "22", "must be at least 1024, not 22"),
    ("containers vendor key_fingerprints 0", 1234, "'1234' is not a key fingerprint"),
    ("monitoring receivers phone", {"url": "https://a"}, "is missing; write 'webhook', 'ntfy' or 'email'"),
    ("monitoring receivers phone", {}, "is missing; write 'webhook', 'ntfy' or 'email'"),
    ("monitoring receivers phone", {"kind": "mail"}, "must be 'webhook', 'ntfy' or 'email', not 'mail'"),
    ("engines other", {"port": 8009}, "is missing; write 'container', 'native' or 'vllm'"),
]

REMOTE = {"enabled": True, "networks": ["10.8.0.0/24"], "names": ["rig.example.org"]}
GATEWAY: list[Mutation] = [
    *(("gateway limits rate", rate, "the nearest possible: ") for rate in (7, 90, 599)),
    ("gateway limits rate", 0, "must be at least 1"),
    ("gateway limits rate", 601, "must be at most 600"),
    ("gateway limits burst", 0, "must be at least 1"),
    ("gateway limits", {"rate": 1, "burst": 61}, "which are the requests of an hour"),
    ("gateway limits concurrency", 0, "must be at least 1"),
    ("gateway limits wrong_keys", 0, "must be at least 1"),
    ("gateway body request", "1K", "write 1M or more"),
    ("gateway body request", "2G", "write 1G or less"),
    ("gateway body upload", "101G", "write 100G or less"),
    ("gateway memory", "64M", "write 256M or more"),
    ("gateway port", 80, "must be at least 1024"),
    ("gateway metrics port", 9090, "is already the port of"),
    ("gateway metrics port", 8080, "is already the port of gateway"),
    *(
        ("gateway input patterns 0", {"name": "x", "regex": regex}, sentence)
        for regex, sentence in {
            "(": "is not a regular expression",
            "[z-a]": "is not a regular expression",
            ".*": "matches every request",
            "a|": "matches every request",
            "a\nb": "holds a line break",
            "x" * 501: "write 500 at most",
        }.items()
    ),
    ("gateway input patterns 0", {"name": "A B", "regex": "x"}, "is not a usable name"),
    ("gateway fallbacks", {"llama-8b": "llama-8b"}, "is the engine itself"),
    ("gateway fallbacks", {"llama-8b": "llama-71b"}, "is no enabled engine; write 'llama-70b'"),
    ("gateway fallbacks", {"nobody": "llama-8b"}, "is no enabled engine"),
    ("gateway routes", {"chat": {}}, "has no engine"),
    ("gateway routes", {"chat": {"llama-80b": 1}}, "is no enabled engine"),
    ("gateway routes", {"chat": {"llama-8b": 0}}, "must be at least 1"),
    ("gateway routes", {"Chat GPT": {"llama-8b": 1}}, "is not a usable name"),
    ("gateway remote", REMOTE | {"networks": []}, "nobody reaches it"),
    ("gateway remote", REMOTE | {"names": []}, "needs a name"),
    ("gateway remote", REMOTE | {"port": 8080}, "is already the port of gateway"),
    ("gateway remote names 0", "rig.example.org,DNS:other", "is not a host name"),
    ("gateway remote names 0", "https://rig.example.org", "is not a host name"),
    ("gateway remote interface", "wg0; accept", "is not a network interface"),
    ("gateway remote interface", "x" * 16, "is not a network interface"),
    ("gateway remote certificate", {"chain": "chain.pem", "key": "/key.pem"}, "is not an absolute path"),
    ("gateway remote certificate", {"chain": "/chain.pem"}, "is missing"),
]


def table() -> list[Mutation]:
    """All rows."""
    fixed = (INJECTED, STORAGE, PEOPLE, KERNEL, COUNTED, ARGUMENTS, DOCKER, GATEWAY, MESSAGES)
    return [*invisible(), *folders(), *(mutation for group in fixed for mutation in group)]
