"""mkiso(1), from the help of the commands: `python packaging/manpage.py` writes it to standard output."""

from __future__ import annotations

import click

from mkiso import __version__
from mkiso.commands.cli import cli

HEAD = r""".TH MKISO 1 "" "mkiso {version}"
.SH NAME
mkiso \- {summary}
.SH SYNOPSIS
.B mkiso
.I COMMAND
.RI [ OPTIONS ]
.SH COMMANDS
"""
TAIL = r""".SH EXIT STATUS
0 done, 1 the job failed, 2 usage or configuration, 130 interrupted.
.SH ENVIRONMENT
.TP
.B MKISO_CONFIG
The configuration, where no \-\-config names it.
.TP
.B MKISO_LOG
.I json
makes every line of the log JSON.
.SH FILES
.TP
.I /etc/mkiso/mkiso.yaml
The configuration; /usr/share/doc/mkiso/mkiso.yaml explains every key.
.TP
.I /usr/share/doc/mkiso/operations.md
Installation, nginx, log, upgrade, backup; errors.md beside it: each error, and what to do.
.TP
.I /var/lib/mkiso
The ledger.
.TP
.I /var/cache/mkiso
Job directories, while jobs run.
.SH NOTES
Run the commands as the service's user: runuser \-u mkiso \-\- mkiso check
"""


def troff(text: str) -> str:
    """Text in which nothing is markup."""
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("\n.", "\n\\&.")


def options(command: click.Command, context: click.Context) -> list[str]:
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    return [f".TP\n.B {troff(name)}\n{troff(told)}" for name, told in records]


def section(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    told = troff((command.help or "").replace("\b", "").strip())
    return "\n".join([f".SS {troff(usage)}", told, *options(command, context)])


def main() -> None:
    context = click.Context(cli, info_name="mkiso")
    summary = troff((cli.help or "").rstrip("."))
    print(HEAD.format(version=__version__, summary=summary), end="")
    print("\n".join(section(name, command, context) for name, command in sorted(cli.commands.items())))
    print(TAIL, end="")


if __name__ == "__main__":
    main()
