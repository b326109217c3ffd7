"""The command line `rig`, as it is typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.unit.project import WORKSTATION, Project


def test_right_settings_are_summed_up_and_exit_0(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    done = project.run("rig", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "workstation is valid\n"
        "  address   owner@192.168.1.20:22\n"
        "  groups    workstation\n"
        "  timezone  Etc/UTC\n"
        "  models    llama-3.3-70b-q4, llama-3.1-8b-q4\n"
        "  engines   llama-70b (container, 127.0.0.1:8002), llama-8b (native, 127.0.0.1:8003)\n"
        "  firewall  on\n"
    )


def test_without_a_machine_all_yml_alone_is_checked(project: Project) -> None:
    done = project.rig("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "group_data/all.yml is valid; group_data/hosts.yml names no machine yet\n"


def test_problems_go_to_stderr_without_colour_in_a_pipe_and_exit_2(project: Project) -> None:
    here = project.line("all.yml", "machine:")
    wrong = project.change("all.yml", "  timezone: Etc/UTC", "  timezon: Etc/UTC")
    done = project.run("rig", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"group_data/all.yml:{here}: machine.timezone: is missing; "
        "add it: Time zone, a name of the tz database such as Europe/Berlin.\n"
        f"group_data/all.yml:{wrong}: machine.timezon: unknown key; write 'timezone'\n"
        "2 problems; no connection was made\n"
    )


def test_problems_as_json_can_be_read_by_a_program(project: Project) -> None:
    line = project.change("all.yml", "  source: vendor\n\n  # The v", "  source: vender\n\n  # The v")
    done = project.rig("check", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {
        "machines": {},
        "problems": [
            {
                "file": "group_data/all.yml",
                "line": line,
                "path": "containers.source",
                "message": "must be 'vendor' or 'distribution', not 'vender'; write 'vendor'",
            }
        ],
    }


def test_machines_as_json_can_be_read_by_a_program(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    told = json.loads(project.rig("check", "--json").stdout)
    assert told["problems"] == []
    assert told["machines"]["workstation"]["models"] == ["llama-3.3-70b-q4", "llama-3.1-8b-q4"]


def test_data_is_checked_as_pyinfra_would_take_it(project: Project) -> None:
    done = project.rig("check", "--data", "machine.timezone=Nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("--data: machine.timezone: 'Nowhere' is not a known time zone; write ")


def test_data_without_a_value_is_refused(project: Project) -> None:
    done = project.rig("check", "--data", "machine.timezone")
    assert done.returncode == 2
    assert "'machine.timezone' has no value; write key=value" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schema_is_printed_even_where_no_machine_is_configured(project: Project) -> None:
    done = project.rig("schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["properties"]["machine"]["properties"]["timezone"]["default"] == "Etc/UTC"


def test_the_schema_follows_the_owners_all_yml(project: Project) -> None:
    project.change("all.yml", "  timezone: Etc/UTC", "  timezone: Asia/Tokyo")
    told = json.loads(project.rig("schema").stdout)
    assert told["properties"]["machine"]["properties"]["timezone"]["default"] == "Asia/Tokyo"


def test_the_schema_of_a_broken_all_yml_is_printed_without_defaults_and_with_a_sentence_and_exit_2(
    project: Project,
) -> None:
    project.write("all.yml", "[")
    done = project.rig("schema")
    assert done.returncode == 2
    zone = json.loads(done.stdout)["properties"]["machine"]["properties"]["timezone"]
    assert zone["type"] == "string" and "default" not in zone
    assert done.stderr.startswith("group_data/all.yml:")
    assert "Traceback" not in done.stderr


def test_help_says_what_the_commands_do(project: Project) -> None:
    told = project.rig("--help").stdout
    assert "Check all settings" in told
    assert "Print the JSON Schema" in told
    assert "--json" in project.rig("check", "--help").stdout


def test_a_mistyped_command_names_the_nearest_one(project: Project) -> None:
    done = project.run("rig", "docter")
    assert done.returncode == 2
    assert "No such command 'docter'. Did you mean 'doctor'?" in done.stderr


def test_the_version_names_the_commit(project: Project) -> None:
    done = project.rig("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"rig \d+\.\d+( \(commit [0-9a-f]{7,}(, with changes)?\))?\n", done.stdout)


def test_the_shell_completes_commands(project: Project) -> None:
    asked = {"_RIG_COMPLETE": "bash_complete", "COMP_WORDS": "rig pl", "COMP_CWORD": "1"}
    assert project.run("rig", **asked).stdout == "plain,plan\n"


def test_checking_loads_neither_pyinfra_nor_a_web_client(project: Project) -> None:
    script = (
        "import sys; from rig.operator.commands import main; main(['check'], standalone_mode=False);"
        "print(sorted({'pyinfra', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
