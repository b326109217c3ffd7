"""`python -m rig`: the command line `rig` in a virtual environment without its launcher."""

from rig.operator.commands import main

if __name__ == "__main__":
    main(prog_name="rig")
