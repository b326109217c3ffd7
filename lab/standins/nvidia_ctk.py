#!/usr/bin/python3 -I
"""nvidia-ctk for a machine without the card: CDI specifications of harmless devices, in the form of the real ones.

nvidia-ctk cdi generate [--output=FILE]     the devices that the driver's stand-in made when it was loaded
nvidia-ctk cdi list                         names of all specifications in /etc/cdi and /var/run/cdi
nvidia-ctk --version
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NODES = ("nvidia0", "nvidiactl", "nvidia-uvm")
FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
SMI = "/usr/lib/rig-lab/nvidia-smi-in-a-container"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--version"]:
            version = Path("/usr/lib/rig-lab/toolkit").read_text().strip()
            print(f"NVIDIA Container Toolkit CLI version {version}\ncommit: none")
            return 0
        case ["cdi", "list"]:
            return listing()
        case ["cdi", "generate", *options]:
            return generate(next((word.partition("=")[2] for word in options if word.startswith("--output=")), None))
    print(f"nvidia-ctk: {' '.join(arguments)}: not known to the stand-in", file=sys.stderr)
    return 1


def generate(output: str | None) -> int:
    loaded = Path("/sys/module/nvidia/version")
    library = Path("/usr/lib/rig-lab/driver").read_text().strip()
    if not loaded.exists() or loaded.read_text().strip() != library:
        cause = "Driver/library version mismatch" if loaded.exists() else "Driver Not Loaded"
        print(f"failed to generate CDI spec: failed to initialize NVML: {cause}", file=sys.stderr)
        return 1
    nodes = [{"path": f"/dev/{name}"} for name in NODES]
    mount = {"options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]}
    nvml = f"{LIBRARIES}/libnvidia-ml.so.{library}"
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": name, "containerEdits": {"deviceNodes": nodes[:1]}} for name in ("0", "all")],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": nodes[1:],
            "mounts": [
                {"hostPath": SMI, "containerPath": "/usr/bin/nvidia-smi", **mount},
                {"hostPath": nvml, "containerPath": nvml, **mount},
            ],
        },
    }
    # The real one writes YAML, which this is, too.
    text = "---\n" + json.dumps(spec, indent=2) + "\n"
    if output is None:
        print(text)
    else:
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)
    return 0


def listing() -> int:
    names = []
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.yaml")):
            spec = json.loads(path.read_text().removeprefix("---\n"))
            names += [f"{spec['kind']}={device['name']}" for device in spec["devices"]]
    print(f'time="2026-01-01T00:00:00Z" level=info msg="Found {len(names)} CDI devices"', file=sys.stderr)
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
