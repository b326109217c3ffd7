"""The errors of a full disk."""

from __future__ import annotations

import errno

from sqlalchemy.exc import OperationalError


def lacks_room(error: BaseException) -> bool:
    """True if the disk is full, or a file has reached the largest size that the system allows."""
    if isinstance(error, OperationalError):
        # SQLite's SQLITE_FULL; and SQLITE_IOERR, for a limit on the size of files.
        return "disk is full" in str(error.orig) or "disk I/O error" in str(error.orig)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
