"""The modules that a whole machine's firmware and kernel accept: signed or not, and with which key.

The real dkms builds and signs a module of the driver's name and licence for the machine's own kernel. One machine for
all, in this order: Secure Boot on, then the key enrolled, then Secure Boot off.
"""

from __future__ import annotations

import subprocess

import pytest

from lab.machine import Lab
from lab.recipes.driver import DRIVERS, LICENCE, module_source
from tests.lab.conftest import Machines

VERSION = DRIVERS[-1]
SOURCE = f"/usr/src/nvidia-{VERSION}"
CERTIFICATE = "/var/lib/dkms/mok.pub"
UNSIGNED = "/root/unsigned/nvidia.ko"
STRANGERS = "/root/strangers/nvidia.ko"
REJECTED = "Key was rejected by service"


@pytest.fixture(scope="module")
def lab(machines: Machines) -> Lab:
    """A machine whose firmware has Secure Boot on, with three copies of one module."""
    lab = machines.boot(name="secure-boot", vm=True, secure_boot=True)
    lab.sudo(f"mkdir {SOURCE}")
    for name, text in module_source(VERSION).items():
        lab.sudo(f"cat >{SOURCE}/{name}", input=text)
    lab.sudo(f"dkms install -m nvidia -v {VERSION}", timeout=1800)
    lab.sudo(
        f"""set -e
        module=$(modinfo -n nvidia)
        mkdir /root/unsigned /root/strangers
        case $module in *.xz) xz -dc "$module" ;; *) cat "$module" ;; esac >{UNSIGNED}
        strip --strip-debug {UNSIGNED}
        cd /root/strangers
        openssl req -new -x509 -nodes -days 9 -newkey rsa:2048 -subj /CN=stranger -keyout key -outform DER -out der
        cp {UNSIGNED} {STRANGERS}
        /lib/modules/$(uname -r)/build/scripts/sign-file sha256 key der {STRANGERS}
        """,
        timeout=900,
    )
    return lab


def insert(lab: Lab, file: str) -> subprocess.CompletedProcess[str]:
    return lab.sudo(f"insmod {file}", check=False)


def loaded(lab: Lab) -> bool:
    return bool(lab.ssh("grep '^nvidia ' /proc/modules", check=False).stdout)


def secure(lab: Lab) -> str:
    return lab.sudo("od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-*").stdout.strip()


def test_a_module_without_a_signature_or_with_an_unknown_one_is_rejected(lab: Lab) -> None:
    assert secure(lab) == "1"
    signer = lab.sudo("modinfo -F signer nvidia").stdout.strip()
    assert signer
    assert lab.sudo(f"modinfo -F signer {UNSIGNED}").stdout.strip() == ""
    assert lab.sudo(f"modinfo -F signer {STRANGERS}").stdout.strip() == "stranger"
    for refused in (lab.sudo("modprobe nvidia", check=False), insert(lab, UNSIGNED), insert(lab, STRANGERS)):
        assert refused.returncode != 0
        assert REJECTED in refused.stderr
    assert not loaded(lab)


def test_a_module_whose_key_has_been_enrolled_is_loaded_and_no_other(lab: Lab) -> None:
    certificate = lab.sudo(f"openssl x509 -inform DER -in {CERTIFICATE}").stdout
    lab.stop()
    lab.enrol(certificate)
    lab.start()
    assert secure(lab) == "1"
    for file in (UNSIGNED, STRANGERS):
        assert REJECTED in insert(lab, file).stderr
    lab.sudo("modprobe nvidia")
    assert loaded(lab)
    assert lab.sudo("modinfo -F license nvidia").stdout.strip() == LICENCE
    assert lab.sudo("cat /sys/module/nvidia/version").stdout.strip() == VERSION
    assert lab.sudo("modinfo -F signer nvidia").stdout.strip() in certificate_names(lab)


def certificate_names(lab: Lab) -> str:
    return lab.sudo(f"openssl x509 -inform DER -in {CERTIFICATE} -noout -subject").stdout


def test_without_secure_boot_a_module_needs_no_signature(lab: Lab) -> None:
    lab.stop()
    lab.firmware(secure_boot=False)
    lab.start()
    assert secure(lab) == "0"
    assert insert(lab, UNSIGNED).returncode == 0
    assert loaded(lab)
