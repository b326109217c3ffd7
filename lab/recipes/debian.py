"""Debian root file systems, from the archive that the operator's own machine uses."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from lab.cache import Cache, Note, recipe_source, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What the disk claims to have; it takes only what is written to it.
DISK_SIZE = "24G"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BARE = ("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "sudo", "iproute2", "ca-certificates")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.S)

_SSHD = """# The lab's machine is entered with a key only, as the real one should be.
PasswordAuthentication no
KbdInteractiveAuthentication no
"""


def sources(release: str) -> str:
    """deb822 sources of `release`, at the archive addresses that this machine's apt uses for its own.

    Empty where this machine's apt names no Debian archive (Ubuntu): mmdebstrap then uses its own default.
    """
    targets = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    own = _own_codename()
    suites: dict[str, list[str]] = {}
    for line in sorted(set(targets.splitlines())):
        address, suite, component = line.split()
        if component != "main":
            continue
        for suffix in ("", "-updates", "-security"):
            if suite == own + suffix and (suffix == "" or release != "sid"):
                suites.setdefault(address.rstrip("/"), []).append(release + suffix)
    return "\n".join(
        f"Types: deb\nURIs: {address}\nSuites: {' '.join(names)}\nComponents: main\nSigned-By: {KEYRING}\n"
        for address, names in suites.items()
    )


def _own_codename() -> str:
    """This machine's Debian release, or a word that no archive has where it is not Debian."""
    words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return words.get("VERSION_CODENAME", "-").strip('"') if words.get("ID", "").strip('"') == "debian" else "-"


def apt_options() -> list[str]:
    """What this machine's apt is told about its archive holds for the archive's other releases too."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    wanted = ("Acquire::Check-Valid-Until ", "Acquire::http::Proxy ", "Acquire::https::Proxy ")
    return [line.rstrip(";") for line in dump.splitlines() if line.startswith(wanted)]


def debootstrap(release: str, target: Path, variant: str, include: tuple[str, ...], note: Note) -> None:
    """A root file system of `release` at `target`, with deb822 sources as Debian itself writes them."""
    text = sources(release)
    listing = target.parent / f".{target.name}.sources"
    options = [f"--aptopt={option}" for option in apt_options()]
    if release == "sid":
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    if text:
        listing.write_text(text)
    try:
        run(
            [
                "mmdebstrap",
                "--mode=root",
                f"--variant={variant}",
                f"--include={','.join(include)}",
                *options,
                release,
                target,
                *([listing] if text else []),
            ],
            note,
        )
    finally:
        listing.unlink(missing_ok=True)
    if text:
        for leftover in (target / "etc/apt/sources.list.d").iterdir():
            leftover.unlink()
        (target / "etc/apt/sources.list").unlink(missing_ok=True)
        (target / "etc/apt/sources.list.d/debian.sources").write_text(text)
    for leftover in (target / "etc/apt/apt.conf.d").glob("99mmdebstrap"):
        leftover.unlink()


def bare(cache: Cache, release: str) -> Path:
    """A machine as the installer leaves it: SSH, an ordinary user with sudo, and nothing of ours.

    A disk image with a file system of its own: copied in a moment, and full or broken for itself only.
    """
    certificates = CERTIFICATES.read_text() if CERTIFICATES.exists() else ""

    def make(target: Path, note: Note) -> None:
        root = target.with_name(f"{target.name}.tree")
        shutil.rmtree(root, ignore_errors=True)
        debootstrap(release, root, "important", BARE, note)
        _trust(root, certificates)
        run(["chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo", "rig"])
        sudoers = root / "etc/sudoers.d/rig"
        sudoers.write_text("rig ALL=(ALL:ALL) NOPASSWD: ALL\n")
        sudoers.chmod(0o440)
        (root / "etc/ssh/sshd_config.d/lab.conf").write_text(_SSHD)
        for key in (root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        run(["chroot", root, "systemctl", "enable", "systemd-networkd.service"])
        # A login prompt on a console that nobody has would only restart for ever.
        run(["chroot", root, "systemctl", "mask", "console-getty.service", "getty@tty1.service"])
        note("writing the disk")
        run(["mkfs.ext4", "-q", "-L", "lab", "-E", "lazy_itable_init=1", "-d", root, target, DISK_SIZE])
        shutil.rmtree(root)

    recipe = [*recipe_source("debian"), release, sources(release), *apt_options(), certificates]
    return cache.artefact(f"debian-{release}", f"Build a bare Debian {release}", recipe, make)


def _trust(target: Path, certificates: str) -> None:
    """Authorities that this machine trusts and Debian does not, such as a company's own."""
    known = set(_PEM.findall((target / "etc/ssl/certs/ca-certificates.crt").read_text()))
    for number, certificate in enumerate(c for c in _PEM.findall(certificates) if c not in known):
        (target / f"usr/local/share/ca-certificates/lab-{number}.crt").write_text(certificate)
    run(["chroot", target, "update-ca-certificates"])
