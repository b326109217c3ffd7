"""NVIDIA's package repositories with stand-ins under the real names: two branches of the driver, two toolkits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.cache import Cache, Note, recipe_source, run
from lab.recipes import signing

CUDA = "cuda/repos"
TOOLKIT = "libnvidia-container"
FOLDERS = {"debian12": "3bf863cc.pub", "debian13": "8793F200.pub"}
"""Folder of each distribution, and the name of the key in it."""

DRIVERS = ("590.48.01", "595.91.07")
TOOLKITS = ("1.19.1-1", "1.20.0-1")
KERNELS = {
    "debian12": ("6.1.0-50-amd64", "6.1.0-51-amd64"),
    "debian13": ("6.12.107+deb13-amd64", "6.12.110+deb13-amd64"),
}
"""Kernels of hardware.py, and a later one of each."""

STANDINS = Path(__file__).parent.parent / "standins"
LAB = "usr/lib/rig-lab"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LICENCE = "Dual MIT/GPL"


@dataclass(frozen=True)
class Package:
    """One stand-in."""

    name: str
    version: str
    control: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Path and text; what begins with `#!` can be run."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """Maintainer scripts."""


def repository(cache: Cache) -> Path:
    """A tree with both repositories; `fingerprint` and `fingerprint-toolkit` in it are those of their keys."""

    def make(target: Path, note: Note) -> None:
        target.mkdir()
        common = _build_all(_drivers(), target / "common", note)
        with signing.signer(target / "gnupg") as signer:
            for folder, key in FOLDERS.items():
                base = target / CUDA / folder / "x86_64"
                _build_all(_of_the_distribution(KERNELS[folder]), base, note)
                for deb in common:
                    os.link(deb, base / deb.name)
                _repository(base, {"Origin": "NVIDIA", "Label": "NVIDIA CUDA"}, signer)
                signer.export(base / key)
            (target / "fingerprint").write_text(signer.fingerprint)
        with signing.signer(target / "gnupg") as signer:
            base = target / TOOLKIT / "stable/deb/amd64"
            _build_all(_toolkits(), base, note)
            _repository(base, {"Origin": "libnvidia-container", "Label": "NVIDIA container toolkit"}, signer)
            signer.export(target / TOOLKIT / "gpgkey")
            (target / "fingerprint-toolkit").write_text(signer.fingerprint)
        shutil.rmtree(target / "common")

    recipe = [*recipe_source("driver", "signing"), *(path.read_text() for path in sorted(STANDINS.iterdir()))]
    return cache.artefact("driver", "Make NVIDIA's repositories of stand-ins", recipe, make)


def _repository(base: Path, about: Mapping[str, str], signer: signing.Signer) -> None:
    """A flat one: packages, lists and signatures in one folder."""
    signing.packages(base, sorted(base.glob("*.deb")), base)
    signing.release(base, {**about, "Architectures": "amd64"}, base)
    signer.sign(base)


def _build_all(packages: list[Package], base: Path, note: Note) -> list[Path]:
    base.mkdir(parents=True)
    debs = []
    for package in packages:
        note(f"{package.name} {package.version}")
        debs.append(_build(package, base))
    return debs


def _build(package: Package, base: Path) -> Path:
    work = base / "work"
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "amd64",
        "Maintainer": "The lab <root@localhost>",
        "Section": "non-free/kernel",
        "Priority": "optional",
        **package.control,
        "Description": "stand-in that drives nothing",
    }
    control = work / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    for name, text in package.scripts.items():
        _write(control / name, f"#!/bin/sh\nset -e\n{text}")
    for name, text in package.files.items():
        _write(work / name, text)
    # apt asks for a + by its code.
    deb = base / f"{package.name}_{package.version}_amd64.deb".replace("+", "-")
    run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", work, deb],
        environment={"SOURCE_DATE_EPOCH": "0"},
    )
    shutil.rmtree(work)
    return deb


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755 if text.startswith("#!") else 0o644)


def _standin(name: str) -> str:
    return (STANDINS / name).read_text()


def _drivers() -> list[Package]:
    """The driver of each branch, with the packages by which a branch, or a version, is chosen."""
    found: list[Package] = []
    for version in DRIVERS:
        same = f"(= {version}-1)"
        found += [
            _pinning(version.partition(".")[0], version),
            _pinning(version, version),
            Package(
                "nvidia-open", f"{version}-1", {"Depends": f"nvidia-kernel-open-dkms {same}, nvidia-driver-cuda {same}"}
            ),
            _module(version),
            Package(
                "nvidia-driver-cuda",
                f"{version}-1",
                {"Depends": f"python3, libcuda1 {same}, libnvidia-ml1 {same}, nvidia-persistenced {same}"},
                {"usr/bin/nvidia-smi": _standin("nvidia_smi.py"), f"{LAB}/driver": f"{version}\n"},
            ),
            _library("libnvidia-ml1", "libnvidia-ml.so", version),
            _library("libcuda1", "libcuda.so", version),
            _persistenced(version),
        ]
    return found


def _pinning(chosen: str, version: str) -> Package:
    pinned = f"{chosen}.*" if "." not in chosen else f"{chosen}-*"
    return Package(
        f"nvidia-driver-pinning-{chosen}",
        f"{version}-1",
        {
            "Provides": "nvidia-driver-pinning",
            "Conflicts": "nvidia-driver-pinning",
            "Replaces": "nvidia-driver-pinning",
        },
        {
            "etc/apt/preferences.d/nvidia-driver-pinning": "# The branch of the driver.\n"
            "Package: nvidia-open nvidia-kernel-open-dkms nvidia-driver-cuda nvidia-persistenced libnvidia-ml1 "
            "libcuda1\n"
            f"Pin: version {pinned}\nPin-Priority: 1001\n"
        },
    )


def _module(version: str) -> Package:
    """Built by dkms for each kernel whose headers are there; it keeps nouveau off, as the real one does."""
    return Package(
        "nvidia-kernel-open-dkms",
        f"{version}-1",
        {"Depends": "dkms, kmod", "Provides": "nvidia-kernel", "Conflicts": "nvidia-kernel"},
        {
            f"usr/src/nvidia-{version}/LICENCE": f"{LICENCE}\n",
            **{f"usr/src/nvidia-{version}/{name}": text for name, text in module_source(version).items()},
            "usr/lib/modprobe.d/nvidia-kernel-common.conf": "blacklist nouveau\n",
        },
        {
            "postinst": f"""if [ "$1" = configure ]; then
    dkms add -m nvidia -v {version}
    # Kernels without headers are left out, as the real one does.
    for folder in /lib/modules/*/build; do
        [ ! -e "$folder" ] || dkms install -m nvidia -v {version} -k "$(basename "$(dirname "$folder")")"
    done
fi
""",
            "prerm": f"[ ! -x /usr/sbin/dkms ] || dkms remove -m nvidia -v {version}\n",
        },
    )


def module_source(version: str) -> dict[str, str]:
    """What the real dkms of a whole machine builds: a module of the name, version and licence, that drives nothing."""
    return {
        "dkms.conf": f"""PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
AUTOINSTALL="yes"
""",
        "Kbuild": "obj-m := nvidia.o\n",
        "nvidia.c": f"""#include <linux/module.h>

static int __init nvidia_load(void)
{{
        return 0;
}}

static void __exit nvidia_unload(void)
{{
}}

module_init(nvidia_load);
module_exit(nvidia_unload);
MODULE_LICENSE("{LICENCE}");
MODULE_VERSION("{version}");
MODULE_DESCRIPTION("stand-in that drives nothing");
""",
    }


def _library(name: str, file: str, version: str) -> Package:
    path = f"{LIBRARIES}/{file}"
    link = f'ln -sfn {Path(path).name}.{version} "/{path}.1"\n'
    unlink = f'[ "$1" = upgrade ] || rm -f "/{path}.1"\n'
    return Package(
        name, f"{version}-1", {}, {f"{path}.{version}": "no library\n"}, {"postinst": link, "postrm": unlink}
    )


def _persistenced(version: str) -> Package:
    unit = """[Unit]
Description=NVIDIA Persistence Daemon

[Service]
ExecStartPre=/bin/sh -c 'test -e /sys/module/nvidia || modprobe nvidia'
ExecStart=/bin/sleep infinity

[Install]
WantedBy=multi-user.target
"""
    start = 'if [ "$1" = configure ]; then systemctl daemon-reload; systemctl enable nvidia-persistenced.service; fi\n'
    stop = '[ "$1" = upgrade ] || systemctl disable --now nvidia-persistenced.service\n'
    files = {"usr/lib/systemd/system/nvidia-persistenced.service": unit}
    return Package("nvidia-persistenced", f"{version}-1", {}, files, {"postinst": start, "prerm": stop})


def _of_the_distribution(kernels: tuple[str, ...]) -> list[Package]:
    """Nothing is compiled in the lab: dkms and the kernels' headers are stand-ins, newer than the archive's own."""
    newest = "99:1"
    headers = [
        Package(
            f"linux-headers-{kernel}",
            newest,
            {},
            {f"usr/src/linux-headers-{kernel}/Makefile": "# nothing to be made\n"},
            {
                "postinst": f"mkdir -p /lib/modules/{kernel}\n"
                f"ln -sfn /usr/src/linux-headers-{kernel} /lib/modules/{kernel}/build\n"
                f"[ ! -x /usr/sbin/dkms ] || [ ! -e /boot/vmlinuz-{kernel} ] || dkms autoinstall -k {kernel}\n",
                "postrm": f"rm -f /lib/modules/{kernel}/build\n",
            },
        )
        for kernel in kernels
    ]
    return [
        Package("dkms", newest, {"Depends": "python3, kmod, openssl"}, {"usr/sbin/dkms": _standin("dkms.py")}),
        Package("linux-headers-amd64", newest, {"Depends": f"linux-headers-{kernels[-1]}"}),
        *headers,
    ]


def _toolkits() -> list[Package]:
    found: list[Package] = []
    for version in TOOLKITS:
        same = f"(= {version})"
        found += [
            Package("libnvidia-container1", version),
            Package("libnvidia-container-tools", version, {"Depends": f"libnvidia-container1 {same}"}),
            _toolkit_base(version),
            Package(
                "nvidia-container-toolkit",
                version,
                {"Depends": f"libnvidia-container-tools {same}, nvidia-container-toolkit-base {same}"},
            ),
        ]
    return found


def _toolkit_base(version: str) -> Package:
    """What describes the card to containers, and does so anew when the driver changes."""
    service = """[Unit]
Description=Refresh NVIDIA CDI specification file
ConditionPathExists=/usr/bin/nvidia-smi

[Service]
Type=oneshot
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
CapabilityBoundingSet=CAP_SYS_MODULE CAP_SYS_ADMIN CAP_MKNOD

[Install]
WantedBy=multi-user.target
"""
    path = """[Unit]
Description=Trigger CDI refresh on NVIDIA driver install / uninstall events

[Path]
PathChanged=/lib/modules/%v/modules.dep
PathChanged=/lib/modules/%v/modules.dep.bin

[Install]
WantedBy=multi-user.target
"""
    units = "nvidia-cdi-refresh.path nvidia-cdi-refresh.service"
    return Package(
        "nvidia-container-toolkit-base",
        version,
        {"Depends": "python3"},
        {
            "usr/bin/nvidia-ctk": _standin("nvidia_ctk.py"),
            f"{LAB}/nvidia-smi-in-a-container": _standin("nvidia-smi-in-a-container"),
            f"{LAB}/toolkit": f"{version.partition('-')[0]}\n",
            "usr/lib/systemd/system/nvidia-cdi-refresh.service": service,
            "usr/lib/systemd/system/nvidia-cdi-refresh.path": path,
        },
        {
            "postinst": '[ "$1" = configure ] || exit 0\n'
            f"systemctl daemon-reload; systemctl enable --now {units} || true\n",
            "prerm": f'[ "$1" = upgrade ] || systemctl disable --now {units}\n',
        },
    )
