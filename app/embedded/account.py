"""As whom the server runs. PostgreSQL refuses to be root, so root starts it as somebody else.

That user may not be able to reach the programs or the data: under /root, say. Copies in another
place would have to be kept fresh and cleaned up, and data would not be where METRONOME_HOME says.
So in that case, and only then, the server keeps one of root's capabilities: to pass closed
directories (CAP_DAC_OVERRIDE, which containers grant by default).
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from app.embedded.binaries import EmbeddedError

_NAMES = ("nobody", "daemon", "postgres", "bin")


@dataclass(frozen=True, slots=True)
class Account:
    """The user of the server's processes; ``ids`` is None for the one who starts it."""

    ids: tuple[int, int] | None
    any_path: bool = False

    def own(self, path: Path) -> None:
        """Make ``path``, and what is below it, this user's, where it is root's."""
        if self.ids is None:
            return
        for directory, _, files in os.walk(path):
            for name in (".", *files):
                entry = Path(directory, name)
                if entry.lstat().st_uid == 0:
                    os.chown(entry, *self.ids, follow_symlinks=False)


def choose(data: Path, programs: Path) -> Account:
    """The account for the data directory ``data`` (there or not) and the directory ``programs``.

    :raises EmbeddedError: if ``data`` is another user's, or if root has nobody to run it as.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise EmbeddedError(
                f"{data} belongs to {_name(owner)}: start as that user, or set METRONOME_HOME"
                " to a directory of your own"
            )
        return Account(None)
    user = _existing(owner) if owner else _unprivileged()
    ids = (user.pw_uid, user.pw_gid)
    shared = programs.parent / "share"
    closed = [p for p in (data.parent, programs / "postgres", shared) if not _reachable(p, *ids)]
    return Account(ids, any_path=bool(closed))


def connecting_user() -> str | None:
    """The name of the user who starts the server and connects to it; None if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _name(uid: int | None) -> str:
    try:
        return f"user {pwd.getpwuid(uid or 0).pw_name}"
    except KeyError:
        return f"uid {uid}"


def _existing(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"the data belongs to uid {uid}, which this machine does not know"
        ) from None


def _unprivileged() -> pwd.struct_passwd:
    for name in _NAMES:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if user.pw_uid != 0:
            return user
    raise EmbeddedError(
        "PostgreSQL can't run as root, and there is no user 'nobody' to run it as:"
        " start as an ordinary user, or set DATABASE_URL"
    )


def _reachable(path: Path, uid: int, gid: int) -> bool:
    """Whether the user may pass every directory down to ``path``, and enter or execute it."""
    for entry in (path, *path.parents):
        if not entry.exists():
            return False
        status = entry.stat()
        if status.st_uid == uid:
            needed = stat.S_IXUSR
        elif status.st_gid == gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    return True
