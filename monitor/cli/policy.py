"""python -m monitor policy: the values of the policy for all runs, for a project and for a run.

python -m monitor policy show --run my-run                             every value and the layer that it comes from
python -m monitor policy set mode=approve first_run_mode=observe       for the collector
python -m monitor policy set --project gpt-small batch_cost=1 false_alarms_per_10k=0.25
python -m monitor policy unset --run my-run mode                       what is set above the run counts again
"""

import json
import time
from typing import Annotated, Any

import typer

from db.cli.command_engine import as_typed_here
from lossguard.vocabulary.protocol import is_name
from monitor.actions import policies
from monitor.cli import parameters
from monitor.cli.parameters import BadParameter
from monitor.cli.store import author, exit_with, open_store
from monitor.detection.interventions.run_policy import DETECTION, FIRST_RUN_MODE

app = typer.Typer(help=as_typed_here(__doc__), no_args_is_help=True, add_completion=False)
Project = Annotated[str | None, typer.Option(help="a project; without it and --run: the collector")]
RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="the id of a run")]


@app.command()
def show(
    project: Project = None,
    run: RunId = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Print every value, and whether it is set for the collector, the project or the run, or is the default."""
    _check_one(project, run)
    with open_store() as session:
        shown = policies.show(session, project=project, run_id=run)
    if as_json:
        typer.echo(json.dumps(shown))
        return
    width = max(len(each["name"]) for each in shown["values"])
    for each in shown["values"]:
        typer.echo(f"{each['name']:<{width}}  {json.dumps(each['value']):<12}  {each['from']}")
    if first := shown["layers"]["collector"].get(FIRST_RUN_MODE):
        typer.echo(f"{FIRST_RUN_MODE:<{width}}  {json.dumps(first):<12}  collector")


@app.command("set")
def set_values(
    values: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="values of the policy or the detection")],
    project: Project = None,
    run: RunId = None,
) -> None:
    """Set values. Running runs follow with their next report; the audit trail keeps who set them."""
    try:
        changes = dict(parameters.parse_assignment(each, more=(FIRST_RUN_MODE,)) for each in values)
    except BadParameter as error:
        raise exit_with(error) from None
    _change(changes, project, run)


@app.command()
def unset(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="values of the policy or the detection")],
    project: Project = None,
    run: RunId = None,
) -> None:
    """Remove values, so that those of the layer above count again."""
    known = [*parameters.NAMES, FIRST_RUN_MODE]
    if unknown := [name for name in names if name not in known]:
        raise exit_with(f"there is no value {unknown[0]!r}; the values are: {', '.join(known)}")
    _change(dict.fromkeys(names), project, run)


def _change(values: dict[str, Any], project: str | None, run: str | None) -> None:
    _check_one(project, run)
    settings = {name: value for name, value in values.items() if name in parameters.DETECTION_NAMES}
    changes = {name: value for name, value in values.items() if name not in settings}
    if settings:
        changes[DETECTION] = settings
    with open_store(write=True) as session:
        if run is not None:
            policies.set_of_run(session, run, changes, who=author(), now=time.time())
        else:
            policies.set_default(session, project, changes, who=author(), now=time.time())
    whose = f"run {run}" if run is not None else "the collector" if project is None else f"project {project}"
    for name, value in values.items():
        typer.echo(f"{whose}: {name} {'is no longer set' if value is None else f'= {json.dumps(value)}'}")


def _check_one(project: str | None, run: str | None) -> None:
    if project is not None and run is not None:
        raise exit_with("give --project or --run, not both: a run belongs to one project")
    if project is not None and not is_name(project):
        raise exit_with(f"--project {project!r} is no name: give 1 to 128 characters without control characters")
