"""The command `recipe`: argument parsing alone. What it calls is imported when it is called, so that it starts fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from slurm.encoding import echo, set_up_output, write_exactly
from slurm.image.commands import image

RUNS = "runs"


class _Commands(click.Group):
    """Lists the commands in the order in which they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="neobert-slurm")
def cli() -> None:
    """Runs recipes: sweeps of training and evaluation on a Slurm cluster, or on this machine.

    \b
    recipe plan   recipes/demo.yaml     what would run, and what is done already
    recipe submit recipes/demo.yaml     queue it; returns at once
    recipe status                       how far the newest run is
    recipe results                      its scores as a table
    """


def _example(text: str) -> str:
    return "\b\nExample:\n  " + text


def _plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((
        click.argument("recipe", metavar="RECIPE"),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Override a value, read as YAML: --set resources.cpus=2. May be repeated."),
        click.option("--unset", multiple=True, metavar="KEY", help="Remove a value. May be repeated."),
        click.option("--cluster", "-c", envvar="RECIPE_CLUSTER", default="local", show_default=True, metavar="NAME",
                     help="Cluster profile: a name, or a YAML file. [env: RECIPE_CLUSTER]"),
        _runs_option,
    )):  # fmt: skip
        command = option(command)
    return command


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    new = click.option("--new", is_flag=True, help="Start a new run instead of continuing the newest.")
    run = click.option("--run", "run_name", metavar="NAME",
                       help="Run to continue or make; the recipe's newest by default.")  # fmt: skip
    return _plan_options(run(new(command)))


_code_option = click.option(
    "--code", type=click.Choice(["snapshot", "image"]), default="snapshot", show_default=True,
    help="Run the code that lies here now, or that which the image holds.",
)  # fmt: skip
_runs_option = click.option(
    "--runs", envvar="RECIPE_RUNS", default=RUNS, show_default=True, type=click.Path(path_type=Path),
    help="Directory of all runs. [env: RECIPE_RUNS]",
)  # fmt: skip


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    argument = click.argument("run", required=False, metavar="[RUN]")
    return argument(_runs_option(command))


_stage_option = click.option("--stage", metavar="NAME", help="One stage of the recipe.")
_all_option = click.option("--all", "every", is_flag=True, help="Show every trial.")


@cli.command(epilog=_example("recipe plan recipes/demo.yaml --set resources.cpus=2"))
@_recipe_options
@_all_option
def plan(every: bool, **options: Any) -> None:
    """Show what RECIPE would run: trials, stages, resources, disk, and what is done already. Writes nothing."""
    from slurm import show
    from slurm.disk import report
    from slurm.disk.estimate import estimate
    from slurm.session import open_session

    session = open_session(**options)
    state, todo = session.look()
    console = show.console()
    console.print(show.plan_view(session.plan, todo, {trial.id: trial for trial in state.trials}, every))
    for text in filter(None, (state.warning, *state.notes)):
        console.print(show.prose(f"warning: {text}", "yellow"))
    disk = estimate(session.plan, todo, session.runs)
    if disk.peak:
        console.print(show.results_view(report.stages_table(disk)))
    for note in report.notes(disk):
        console.print(show.prose(note))
    if warning := report.warning(disk):
        console.print(show.prose(f"warning: {warning}", "yellow"))


@cli.command(epilog=_example("recipe render recipes/glue/two-round.yaml --cluster a100 | sbatch"))
@_recipe_options
@_stage_option
@_code_option
@click.option("--chunk", type=int, default=0, metavar="N", help="Which script of a stage that needs several arrays.")
def render(stage: str | None, chunk: int, **options: Any) -> None:
    """Print the exact job script of RECIPE, ready for sbatch.

    Writes the run's directory (the script reads its trials from there) and submits nothing. A run that was rendered
    and piped to sbatch is seen by `recipe status` like one that was submitted.
    """
    from slurm.session import open_session

    run, text, needs = open_session(**options).render(stage, chunk)
    write_exactly(text)
    echo(f"wrote {os.path.relpath(run.path)}; nothing is submitted", err=True)
    for need, jobs in needs.items():
        where = f"--dependency=afterany:{':'.join(jobs)}" if jobs else "--dependency=afterany:ID, the id of its job"
        echo(f"this stage needs {need}, which is not done: give sbatch {where}", err=True)


@cli.command(epilog=_example("recipe submit recipes/demo.yaml --cluster a100 --wait && recipe results"))
@_recipe_options
@click.option("--backend", type=click.Choice(["sbatch", "submitit", "local"]), help="Instead of the profile's.")
@_code_option
@click.option("--wait", is_flag=True, help="Return when all trials have ended; the exit code is 0 if all are done.")
@click.option("--watch", is_flag=True, help="Like --wait, and show the progress.")
def submit(backend: str | None, wait: bool, watch: bool, **options: Any) -> None:
    """Queue RECIPE's trials and return at once.

    Trials that are done, waiting or running are skipped; those that failed or were cancelled run again and go on from
    their last checkpoint. Those that are stale, because what they were made from was made again, begin anew. With
    nothing left to do, nothing is submitted.
    """
    from slurm.session import open_session

    found, jobs = open_session(**options, backend=backend).submit()
    _tell(found.path, jobs)
    if wait or watch:
        from slurm import show
        from slurm.follow import follow

        sys.exit(0 if follow(found, show.console(), quiet=not watch) else 1)
    echo("recipe status, recipe logs and recipe results tell more")


@cli.command(epilog=_example("recipe retry demo --set resources.mem=32G"))
@_run_options
@click.option("--trial", "trials", multiple=True, metavar="ID",
              help="Only this trial, by the beginning of its id; what it needs must be done, queued or named too. "
                   "May be repeated.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Other resources this time: --set resources.time=04:00:00. May be repeated.")  # fmt: skip
def retry(run: str | None, runs: Path, trials: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Queue again what a run has left to do: trials that failed, were cancelled, are stale or never ran.

    They go on from their last checkpoint, as they were submitted before; no recipe is needed. RUN is a run's directory
    or a recipe's name; by default the newest run.
    """
    from slurm.retry import retry_run
    from slurm.rundir import find_run

    found = find_run(runs, run)
    _tell(found.path, retry_run(found, trials, overrides))


@cli.command("exec", epilog=_example("recipe exec recipes/glue/two-round.yaml --cluster a100 --trial 3 -- nvidia-smi"))
@_recipe_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_code_option
@click.option("--trial", metavar="N", help="Its place in the plan, from 0, or the beginning of its id.")
@click.option(
    "--dry-run", is_flag=True, help="Print the `apptainer exec` command, ready to be pasted, and run nothing."
)
def exec_(trial: str | None, command: tuple[str, ...], dry_run: bool, **options: Any) -> None:
    """Run one trial of RECIPE here and now, in its image, as one process.

    Directories, environment and code are those of its job. After `--`, another command runs in its place.
    """
    from slurm.debug import enter_trial
    from slurm.session import open_session

    enter_trial(open_session(**options), trial, command, "print" if dry_run else "exec")


@cli.command(epilog=_example("recipe shell recipes/glue/two-round.yaml --cluster a100"))
@_recipe_options
@_code_option
@click.option("--trial", metavar="N", help="One of the stage whose image is meant; by default the first stage's.")
@click.option("--dry-run", is_flag=True, help="Print the command and run nothing.")
def shell(trial: str | None, dry_run: bool, **options: Any) -> None:
    """Open a shell in the image of RECIPE, with the directories and the environment of its jobs."""
    from slurm.debug import enter_trial
    from slurm.session import open_session

    enter_trial(open_session(**options), trial, ["bash"] if dry_run else [], "print" if dry_run else "shell")


@cli.command(epilog=_example("recipe fetch recipes/glue/two-round.yaml --cluster a100"))
@_plan_options
@click.option("--verify", is_flag=True, help="Read again what was verified before and looks untouched.")
@click.option("--dry-run", is_flag=True, help="Print the command and run nothing.")
def fetch(verify: bool, dry_run: bool, **options: Any) -> None:
    """Download what RECIPE names on the hub, for nodes without a connection.

    Models and data sets go into the cache that its jobs will use (HF_HOME), through its image where it has one.
    """
    from slurm.fetch import fetch as run
    from slurm.session import open_session

    sys.exit(run(open_session(**options), verify, dry_run))


@cli.command(epilog=_example("recipe status runs/demo/20260131-120000 --watch"))
@_run_options
@_all_option
@click.option("--watch", is_flag=True, help="Keep showing it until all trials have ended.")
def status(run: str | None, runs: Path, every: bool, watch: bool) -> None:
    """Show the state of each trial. RUN is a run's directory or a recipe's name; by default the newest run."""
    from slurm import show
    from slurm.follow import follow
    from slurm.rundir import find_run
    from slurm.state import run_state

    found = find_run(runs, run)
    if watch:
        sys.exit(0 if follow(found, show.console(), every=every) else 1)
    show.console().print(show.status_view(run_state(found), every))


@cli.command(epilog=_example("recipe logs demo --trial 3f2a --follow"))
@_run_options
@click.option(
    "--trial", metavar="ID", help="Trial, by the beginning of its id. By default one that failed, else one that runs."
)
@click.option("--attempt", type=int, metavar="N", help="Which attempt; the last by default.")
@click.option("--follow", "-f", is_flag=True, help="Keep printing until the trial ends.")
def logs(run: str | None, runs: Path, trial: str | None, attempt: int | None, follow: bool) -> None:
    """Print the log of one trial. RUN is a run's directory or a recipe's name; by default the newest run."""
    from slurm.logs import print_log
    from slurm.rundir import find_run

    print_log(find_run(runs, run), trial, attempt, follow)


@cli.command(epilog=_example("recipe cancel demo"))
@_run_options
@click.option(
    "--trial",
    "trials",
    multiple=True,
    metavar="ID",
    help="Only this trial, by the beginning of its id. May be repeated.",
)
def cancel(run: str | None, runs: Path, trials: tuple[str, ...]) -> None:
    """Cancel what waits or runs. Running trials save a checkpoint first; `recipe submit` goes on from there.

    With --trial, what waits for that trial is cancelled as well.
    """
    from slurm.cancel import cancel_run
    from slurm.rundir import find_run

    found = find_run(runs, run)
    done = cancel_run(found, trials)
    tasks = f"{done.tasks} array task{'' if done.tasks == 1 else 's'}"
    saving = f"; {done.running} of them ran and may save a checkpoint first" if done.running else ""
    waiting = f"; {done.dependent} of them waited for the others" if done.dependent else ""
    text = f"cancelled {tasks} of {os.path.relpath(found.path)}{saving}{waiting}"
    echo(text if done.tasks else "nothing waits or runs")


@cli.command(epilog=_example("recipe results demo --format markdown > table.md"))
@_run_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "markdown", "latex"]),
    default="table",
    show_default=True,
)
@click.option("--metric", metavar="NAME", help="Another metric than the one that each trial is scored by.")
@click.option("--trials", "each", is_flag=True, help="One row for each trial, with all of its metrics.")
@click.option("--compare", nargs=2, metavar="A B",
              help="Two runs instead of RUN, trial by trial: how much better B is, and how sure that is.")  # fmt: skip
def results(
    run: str | None, runs: Path, form: str, metric: str | None, each: bool, compare: tuple[str, str] | None
) -> None:
    """Print the scores: statistics over seeds for each point of the grid, with what is missing.

    `ci95` is half of the 95 % confidence interval of the mean. With --compare, trials of two runs are paired by stage,
    grid and seed; p is that of an exact sign-flip test on the differences. RUN, A and B are a run's directory or a
    recipe's name.
    """
    from slurm import show
    from slurm.compare import compare_runs
    from slurm.results import FORMATS, notes_on, results_table, trials_table
    from slurm.rundir import find_run
    from slurm.state import run_state

    if compare:
        if run is not None or each:
            raise click.UsageError("--compare takes two runs; neither RUN nor --trials goes with it")
        a, b = (run_state(find_run(runs, name)) for name in compare)
        found = compare_runs(a, b, metric)
        doubts = [f"{run}: {note}" for run, state in (("A", a), ("B", b)) for note in notes_on(state.trials)]
        table, notes = found.table, [*found.notes, *doubts, a.warning, b.warning, *a.notes, *b.notes]
    else:
        state = run_state(find_run(runs, run))
        table = trials_table(state) if each else results_table(state, metric)
        notes = [*notes_on(state.trials), state.warning, *state.notes]
    if form == "table":
        show.console().print(show.results_view(table))
    else:
        write_exactly(FORMATS[form](table))
    errors = show.console(stderr=True)
    for note in dict.fromkeys(filter(None, notes)):
        errors.print(show.prose(note))


@cli.command(epilog=_example("recipe clean demo --dry-run"))
@_run_options
@click.option("--keep", type=click.Choice(["best", "last"]),
              help="Keep this of each trial that is done, instead of what its trainer.keep says.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", "-y", is_flag=True, help="Remove without asking.")
def clean(run: str | None, runs: Path, keep: Any, dry_run: bool, yes: bool) -> None:
    """Show what a run no longer needs, ask, and remove it.

    That is: checkpoints that the trainer.keep of trials which are done does not keep, partial checkpoints of attempts
    that are over, and code of earlier submissions that no job uses. Results, metrics and logs stay, and so does every
    file of a trial that waits or runs. RUN is a run's directory or a recipe's name; by default the newest run.
    """
    from neobert.config.keep import bytes_text
    from slurm import show
    from slurm.clean import clean as remove
    from slurm.clean import look
    from slurm.rundir import find_run

    target = find_run(runs, run)
    spare = look(target, keep)
    size, where = bytes_text(spare.size), os.path.relpath(target.path)
    table = spare.table()
    if table.rows:
        show.console().print(show.results_view(table))
    for note in spare.notes:
        echo(note, err=True)
    if not table.rows:
        echo(f"nothing to remove in {where}")
    elif dry_run:
        echo(f"{size} would be removed from {where}")
    elif yes or _agreed(f"Remove {size} from {where}?"):
        remove(target, spare, keep)
        echo(f"removed {size} from {where}")
    else:
        echo("nothing was removed")


def _agreed(question: str) -> bool:
    """Ask at the terminal; where there is none, the answer must be an option."""
    if not sys.stdin.isatty():
        from neobert.config import ConfigError

        raise ConfigError("nothing was removed: there is no terminal to ask at. Pass --yes, or --dry-run just to look")
    return click.confirm(question)


def _tell(run: Path, jobs: Sequence[Any]) -> None:
    where = os.path.relpath(run)
    if jobs:
        ids = ", ".join(f"{job.id} ({job.tasks} task{'s' if job.tasks > 1 else ''})" for job in jobs)
        echo(f"submitted to {jobs[0].backend}: {ids}\nrun: {where}")
    else:
        echo(f"nothing to submit: every trial is done or in the queue (--new starts a new run)\nrun: {where}")


cli.add_command(image)


def main() -> None:
    """The console command: every mistake of the user ends with a message and no traceback."""
    set_up_output()
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        echo("interrupted; what was submitted goes on (recipe status, recipe cancel)", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show(sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `recipe render ... | head`
        _end_output()
        sys.exit(141)
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 60) : error.end + 60]
        echo(f"error: {near!r} holds bytes that are no UTF-8 text; rename it", err=True)
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        echo(f"error: {place}{error.strerror or error}", err=True)
        if not error.filename:
            _end_output()
        sys.exit(1)
    except Exception as error:
        from neobert.config import ConfigError

        if not isinstance(error, ConfigError):
            raise
        for problem in error.problems:
            echo(f"error: {problem}", err=True)
        sys.exit(2)


def _end_output() -> None:
    """Sends what standard output still holds back to nowhere: Python would try to write it again as it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
