"""The demonstration: boot the lab, deploy to it, verify it, chat with it, and print the next steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.machine import (
    CHECKOUT,
    NAME,
    Lab,
    LabFailed,
    authorise,
    default_directory,
    fetch_real_model,
    program,
    running,
)
from lab.recipes import smollm2
from rig.settings import SettingsError, load
from rig.settings.secrets import key_variable

STEPS = 6
QUESTION = "Which gas do plants take from the air?"
COLUMNS = 100
NONSENSE = (
    "(The hand-made model has random weights, so the answer is gibberish. The real one could not be fetched; "
    "script/demo --down, then script/demo, tries again.)"
)

# Runs on the machine as root, from standard input: the key is in no arguments and stays on the machine.
_ASK = """
import json, pathlib, urllib.request
lines = pathlib.Path("/etc/rig/keys.env").read_text().splitlines()
keys = dict(line.split("=", 1) for line in lines if "=" in line)
request = urllib.request.Request(
    "http://ADDRESS:PORT/v1/chat/completions",
    json.dumps(
        {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64, "temperature": 0, "seed": 1}
    ).encode(),
    {"Content-Type": "application/json", "Authorization": "Bearer " + keys[VARIABLE]},
)
with urllib.request.urlopen(request, timeout=240) as answer:
    print(answer.read().decode())
"""


class StepFailed(Exception):
    """A step of the demonstration failed; the message names the step and the way to more detail."""


def main() -> int:
    began = time.monotonic()
    step = Step()
    try:
        step.begin(2, "Boot a throwaway Debian machine")
        lab = _lab()
        step.begin(3, "Deploy: pyinfra inventory.py deploy.py -y")
        _tool(lab, "-vvv", "pyinfra", "inventory.py", "deploy.py", "-y")
        step.begin(4, "Verify from outside: pytest --hosts=... tests/host")
        hosts = (f"--hosts=ssh://{NAME}", f"--ssh-config={_shown(lab.ssh_config)}")
        _tool(lab, "-vv", "pytest", *hosts, "tests/host")
        step.begin(5, "Ask the deployed engine")
        _ask(lab)
        step.begin(6, "Keep the machine running")
        lab.keep()
    except (LabFailed, StepFailed) as problem:
        print(f"\ndemo: step '{step.name}' failed: {problem}", file=sys.stderr)
        return 1
    except SettingsError as problem:
        print(f"\ndemo: step '{step.name}' failed: the settings have mistakes:", file=sys.stderr)
        print(problem.report(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ndemo: interrupted in step '{step.name}'; a machine it started ends with it", file=sys.stderr)
        return 130
    print(_GO_ON.format(minutes=(time.monotonic() - began) / 60))
    return 0


class Step:
    """The running step, for error messages."""

    name = ""

    def begin(self, number: int, name: str) -> None:
        self.name = name
        print(f"{number}/{STEPS} {name}", flush=True)


def _lab() -> Lab:
    directory = default_directory()
    if running(directory):
        lab = Lab.attach(directory)
        lab.start()
        print(f"  It stands: Debian {lab.release} at {lab.address}.")
        return lab
    fetch_real_model()
    authorise()
    lab = Lab.boot(directory, chat=True)
    print(f"  Debian {lab.release} at {lab.address}")
    return lab


def _shown(path: Path) -> Path:
    """A path as an owner in the checkout would write it."""
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path


def _tool(lab: Lab, louder: str, name: str, *arguments: str) -> None:
    """Run the tool as an owner would, with its output on the terminal."""
    code = subprocess.run(
        [str(program(name)), *arguments], cwd=CHECKOUT, env=lab.environment(), stdin=subprocess.DEVNULL
    ).returncode
    if code:
        raise StepFailed(
            f"its status is {code}, its output is above. To look closer: .venv/bin/python -m lab up, then "
            f"RIG_LAB={_shown(lab.directory)} .venv/bin/{' '.join([name, louder, *arguments])}"
        )


def _ask(lab: Lab) -> None:
    settings = load(CHECKOUT, lab=lab.directory).hosts[NAME].settings
    engines = settings.enabled_engines
    name = next((name for name, engine in engines.items() if engine.model == smollm2.NAME), next(iter(engines)))
    engine = engines[name]
    script = (
        _ASK.replace("ADDRESS", engine.address)
        .replace("PORT", str(engine.port))
        .replace("QUESTION", repr(QUESTION))
        .replace("VARIABLE", repr(key_variable(name)))
    )
    done = lab.ssh("sudo -n python3 -", check=False, input=script)
    if done.returncode:
        raise StepFailed(
            f"{name} gave no answer ({''.join(done.stderr.strip().splitlines()[-1:])}). To look closer: "
            f".venv/bin/python -m lab up, then ssh -F {_shown(lab.ssh_config)} {NAME}"
        )
    print(conversation(engine.model, json.loads(done.stdout)))


def conversation(model: str, answer: Mapping[str, Any]) -> str:
    """Question and answer for people, with the server's own figures; `answer`: a chat completion of llama.cpp."""
    # A model may send anything, including a terminal's control characters.
    words = " ".join(answer["choices"][0]["message"]["content"].split())
    said = "".join(character if character.isprintable() else "?" for character in words)
    timings = answer["timings"]
    count, seconds, rate = timings["predicted_n"], timings["predicted_ms"] / 1000, timings["predicted_per_second"]
    lines = [
        f"You: {QUESTION}",
        f"{model}: {said}",
        f"({count} tokens in {seconds:.1f} s, {rate:.0f} tokens/s, by the server's own clock)",
        *([] if model == smollm2.NAME else [NONSENSE]),
    ]
    return "\n".join(textwrap.fill(line, COLUMNS, initial_indent="  ", subsequent_indent="    ") for line in lines)


_GO_ON = f"""
Done in {{minutes:.1f}} minutes. The machine keeps running. How to go on:

  Log in            ssh -F .lab/ssh_config {NAME}
  Use the tool      source .venv/bin/activate
  Deploy again      pyinfra inventory.py deploy.py          (asks before it changes anything)
  Verify again      pytest --hosts=ssh://{NAME} --ssh-config=.lab/ssh_config tests/host
  Change something  edit group_data/all.yml, then: rig check, and deploy again
  Your own machine  write it into group_data/hosts.yml (an example is in there), log in once with ssh, then:
                    rig check && pyinfra inventory.py deploy.py
  Take it down      script/demo --down                      (its disk stays; --down --purge removes that, too)
"""


if __name__ == "__main__":
    os.environ.pop("PYINFRA_YES", None)
    sys.exit(main())
