"""The ``metronome`` command. Each command's module is imported when it is called, not before."""

from __future__ import annotations

from importlib import import_module

import click

# name: (module, object in it, what `metronome --help` says)
COMMANDS = {
    "run": ("app.cli.server", "run", "Start everything: database, API, executor."),
    "migrate": ("app.cli.server", "migrate", "Bring the database's schema up to date."),
    "executor": ("app.cli.server", "executor", "Run one executor process."),
    "keys": ("app.cli.keys", "keys", "Create, list and revoke API keys."),
    "webhooks": ("app.cli.webhooks", "webhooks", "Create, list and revoke webhooks' secrets."),
    "purge": ("app.cli.purge", "purge", "Delete runs that ended long ago."),
    "demo": ("app.cli.demo", "demo", "Watch a run being cancelled."),
    "metronomes": ("app.cli.metronomes", "metronomes", "List and create workflows."),
    "versions": ("app.cli.versions", "versions", "Save, compare and publish versions."),
    "runs": ("app.cli.runs", "runs", "List and show runs, stop them, let them go on."),
    "approvals": ("app.cli.approvals", "approvals", "List what waits for a decision."),
    "schedules": ("app.cli.schedules", "schedules", "List when workflows start by themselves."),
}


class LazyGroup(click.Group):
    """A group whose commands are named in ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help text, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, _, told) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metronome")
def main() -> None:
    """Workflow runs that stop when they are cancelled.

    Settings come from environment variables; docs/operations.rst lists them.
    """
