"""The doctor's facts, read from a machine with one script."""

from __future__ import annotations

from rig.facts.gpu import CARDS, DRIVER, card, driver
from rig.gpu.doctor import HANGS, Look
from rig.gpu.driver import DEVICE

SECONDS = 120
"""Time limit of the script in seconds; nvidia-smi and the container have their own limits in it."""

_FURTHER = r"""
lines() { tr "\t" " " | sed "s/^/$1\t/"; }
if command -v dkms >/dev/null; then dkms status 2>/dev/null | grep "^nvidia" | lines dkms; fi
log=$(ls -t /var/lib/dkms/nvidia*/*/build/make.log 2>/dev/null | head -n 1)
[ -z "$log" ] || grep -i -m 1 error "$log" | lines log
if command -v nvidia-smi >/dev/null; then
  said=$(timeout --kill-after=2 10 nvidia-smi --query-gpu=name,driver_version,memory.total \
    --format=csv,noheader,nounits 2>&1)
  printf "code\t%s\n" $?
  printf "%s\n" "$said" | sed "/^$/d" | lines smi
else
  printf "code\t127\n"
fi
if command -v nvidia-ctk >/dev/null; then nvidia-ctk cdi list 2>/dev/null | sed "/^$/d" | lines device; fi
if command -v docker >/dev/null; then
  container=$(timeout 20 docker ps --all --quiet --filter label=rig.engine 2>/dev/null | head -n 1)
  if [ -n "$container" ]; then
    image=$(docker inspect --format "{{.Image}}" "$container")
    printf "image\t%s\n" "$(docker inspect --format "{{.Config.Image}}" "$container")"
    # As tight as an engine's, and with a number for a user that nobody has.
    timeout 60 docker run --rm --pull never --network none --read-only --cap-drop ALL --user 61000:61000 \
      --security-opt no-new-privileges --device @DEVICE@ --entrypoint nvidia-smi "$image" -L 2>&1 |
      awk '/^GPU [0-9]/ { print; found = 1; exit } NR == 1 { first = $0 } END { if (!found) print first }' |
      lines container
  fi
fi
journalctl --dmesg --boot --no-pager --output=cat 2>/dev/null | grep NVRM | tail -n 200 | lines kernel_log
true
"""

SCRIPT = CARDS + DRIVER + _FURTHER.replace("@DEVICE@", DEVICE)


def look(output: list[str]) -> Look:
    """The script's output as a value."""
    rows: dict[str, list[str]] = {}
    for line in output:
        key, _, text = line.partition("\t")
        rows.setdefault(key, []).append(text)
    code = int(rows["code"][0])
    return Look(
        cards=tuple(card(text.split("\t")) for text in rows.get("card", [])),
        driver=driver(output),
        dkms=tuple(rows.get("dkms", [])),
        build_log="".join(rows.get("log", [])).strip(),
        # A process that survives SIGTERM gets SIGKILL.
        smi_code=HANGS if code == 137 else code,
        smi=tuple(rows.get("smi", [])),
        devices=tuple(rows.get("device", [])),
        image="".join(rows.get("image", [])),
        container="".join(rows.get("container", [])).strip(),
        kernel_log=tuple(rows.get("kernel_log", [])),
    )
