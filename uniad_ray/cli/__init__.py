"""The command line: one verb for each function of `pipelines/`, which alone imports what is heavy."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import click

from uniad_ray import __version__
from uniad_ray.cli.annotate_verb import annotate
from uniad_ray.cli.archive_verbs import ingest, inspect, scenes
from uniad_ray.cli.fit_verbs import ablate, bundles, fit
from uniad_ray.cli.run_verbs import compare, evaluate, report, score
from uniad_ray.cli.serve_verbs import serve, serve_key
from uniad_ray.cli.tune_verb import tune_clip
from uniad_ray.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one verb and ends the process: 0 on success, 1 where a part failed, 2 on a user's mistake, 130 on Ctrl-C."""
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
        click.echo("interrupted; give the same command again to go on", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="uniad-ray")
def cli() -> None:
    """Visual anomaly detection for image archives, on Ray.

    Every SOURCE, ARCHIVE, ROOT, RUN and DEST is a local path or an s3:// URI; endpoint, region and credentials are
    those that boto3 finds.
    """


for _verb in (
    scenes,
    ingest,
    inspect,
    annotate,
    tune_clip,
    fit,
    score,
    evaluate,
    report,
    compare,
    ablate,
    bundles,
    serve,
    serve_key,
):
    cli.add_command(_verb)
