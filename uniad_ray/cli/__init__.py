"""The command line. Each verb is a file below `verbs/`; those that have a Python function only call it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import click

from uniad_ray import __version__
from uniad_ray.cli.group import VerbGroup
from uniad_ray.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one verb and ends the process.

    The exit code is 0 on success, 1 if a part failed, 2 on a user's mistake, 3 for alarms of a night, 130 on Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(args=arguments, prog_name="uniad-ray", standalone_mode=False) or 0
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        code = EXIT_USER_ERROR
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; run the same command again to resume", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="uniad-ray")
def cli() -> None:
    """Visual anomaly detection for image archives, on Ray.

    SOURCE, ARCHIVE, ROOT, SIDECAR, RUN and DEST are local paths or s3:// URIs. boto3 finds the endpoint, the region and
    the credentials.
    """
