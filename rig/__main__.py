"""`python -m rig` is the command line `rig` where the virtual environment has no launcher for it."""

from rig.operator.commands import main

if __name__ == "__main__":
    main(prog_name="rig")
