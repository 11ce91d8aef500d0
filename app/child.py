"""Start a program that dies with its parent, and if need be as another user.

This file is run as a script between the parent and the program: it changes itself, then becomes
the program by exec. (``preexec_fn`` would run Python between fork and exec, which may deadlock in
a process that has threads.) It imports nothing of the project, so that it starts in 20 ms.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import struct
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 4
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1


def command(
    program: Sequence[str],
    *,
    death_signal: signal.Signals,
    user: tuple[int, int] | None = None,
    any_path: bool = False,
) -> list[str]:
    """The arguments that start ``program`` in its own session, tied to this process.

    ``death_signal`` is what it gets when the thread that starts it ends (on Linux; elsewhere
    nothing). ``user`` is the uid and gid that it is to have; only root can give them. ``any_path``
    lets that user pass directories and files that are closed to it, as root could.
    """
    arguments = [sys.executable, "-I", "-S", __file__]
    arguments += ["--parent", str(os.getpid()), "--death-signal", str(int(death_signal))]
    if user:
        arguments += ["--uid", str(user[0]), "--gid", str(user[1])]
        if any_path:
            arguments.append("--any-path")
    return [*arguments, "--", *program]


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _become(uid: int, gid: int, *, any_path: bool) -> None:
    if any_path:
        # Capabilities then outlast the change of user, and access(2) regards them, by which
        # PostgreSQL's programs look for each other: without it, that looks as the bare user would.
        _call("prctl", _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if any_path:
        # Kept through exec: in the effective, permitted, inheritable and ambient sets.
        bit = 1 << _CAP_DAC_OVERRIDE
        header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
        _call("capset", header, struct.pack("=6I", bit, bit, bit, 0, 0, 0))
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def main() -> None:
    """Read the arguments that ``command`` made, and become the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--any-path", action="store_true")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    try:
        # A session of its own: Ctrl-C in the terminal is for the parent, which stops its children
        # in order.
        os.setsid()
        if options.uid is not None:
            _become(options.uid, options.gid, any_path=options.any_path)
        if sys.platform == "linux":
            # After the change of user, which would clear it.
            _call("prctl", _PR_SET_PDEATHSIG, options.death_signal, 0, 0, 0)
            if os.getppid() != options.parent:  # it died before it could be asked for
                sys.exit(1)
        os.execvp(options.program[0], options.program)  # noqa: S606
    except OSError as error:
        sys.exit(f"can't start {options.program[0]}: {error}")


if __name__ == "__main__":
    main()
