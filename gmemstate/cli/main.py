"""The entry point: one group of verbs, one place for errors and exit codes."""

import os
import sys
from typing import Any, NoReturn

import click

from gmemstate import GmemstateError, __version__
from gmemstate.cli.exits import Exit, echo, talk

EXAMPLES = """\b
Begin with:
  gmemstate demo               what it is about, in ten seconds
  gmemstate ingest trace.txt   read a kernel trace into the ledger
  gmemstate postmortem         what failed, whose fault it is, what to do

Exit codes: 0 clean, 1 findings, 2 usage, 3 incomplete, 4 cannot read. Every
verb that prints data has --json.
"""


class ReaderGone(Exception):
    """Whoever read our output has had enough; no error, and nobody reads a message."""


class Verbs(click.Group):
    """A group whose verbs are imported when they are first needed."""

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name."""
        from gmemstate.cli import verbs

        verb = verbs.VERBS.get(cmd_name)
        return None if verb is None else verb.load()

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """All verbs, in the order in which one needs them."""
        from gmemstate.cli import verbs

        return list(verbs.VERBS)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing any."""
        from gmemstate.cli import verbs

        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.says) for name, verb in verbs.VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a closed pipe is made known before click turns it into a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None


@click.group(cls=Verbs, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--db", metavar="PATH|URL", envvar="GMEMSTATE_DB", default="gmemstate.db", help="The ledger [default: gmemstate.db]."
)
@click.version_option(__version__, prog_name="gmemstate")
@click.pass_context
def cli(context: click.Context, db: str) -> None:
    """Flight recorder, auditor and post-mortem tool for guest_memfd shared/private conversions."""
    context.obj = db


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    try:
        code = cli.main(args=arguments, prog_name="gmemstate", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        _leave(code if isinstance(code, int) else Exit.CLEAN)
    except click.exceptions.NoArgsIsHelpError as error:
        echo(error.format_message(), err=True)
        _leave(Exit.USAGE)
    except click.ClickException as error:
        error.show()
        _leave(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        _leave(Exit.INTERRUPTED)
    except GmemstateError as error:
        talk(f"gmemstate: {error}")
        _leave(error.exit_code)
    except (ReaderGone, BrokenPipeError):
        _close_output()
        _leave(Exit.CLEAN)
    except OSError as error:
        _close_output()
        talk(
            f"gmemstate: {error.filename or 'the output'}: {error.strerror or error}; check permissions and room, or write "
            f"elsewhere"
        )
        _leave(Exit.CANNOT_READ)


def _close_output() -> None:
    """Keep Python from complaining about what it cannot flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(code: Any) -> NoReturn:
    sys.exit(int(code))
