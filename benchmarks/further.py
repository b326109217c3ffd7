"""Further unchanged files of a deploy, to measure the cost of each; runs after deploy.py.

All of them are one file under many names, so that nothing has to be made on the machine.
"""

from os import environ

from rig.operations.files import written
from rig.render import own_file
from tasks.firewall import UNIT

for number in range(1, int(environ["RIG_FURTHER"]) + 1):
    path = UNIT.replace("/system/", f"/system/{'./' * number}")
    written(name=f"Write the same file by its name {number}", path=path, text=own_file(UNIT))
