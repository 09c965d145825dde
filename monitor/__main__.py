"""The collector's commands.

python -m monitor serve --host 127.0.0.1 --port 8000     take reports, detect incidents, order rollbacks
python -m monitor backtest CURVE.csv... [--json]         detection and policy on recorded curves
python -m monitor backtest --run RUN                     the same on a stored run
python -m monitor scorecard [--project P] [--run R]      what the policy would have done in auto, and what happened
python -m monitor token create|list|revoke               tokens for reporting, reading and operating
python -m monitor lease show|end RUN                     who writes a run; take it from that process
python -m monitor policy show|set|unset                  the policy of all runs, of a project, of a run
python -m monitor settings                               the settings in the environment
"""

from lossguard.run.interrupts import quiet_interrupts

with quiet_interrupts():
    import typer

    from db.cli.command_engine import as_typed_here
    from monitor.cli import backtest, lease, policy, scorecard, serve, store, tokens

app = typer.Typer(
    help=as_typed_here(__doc__), no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.command()(serve.serve)
app.command()(backtest.backtest)
app.command()(scorecard.scorecard)
app.add_typer(tokens.app, name="token", short_help="Create, list and revoke the tokens of the store.")
app.add_typer(lease.app, name="lease", short_help="Show who writes a run, and take it from that process.")
app.add_typer(policy.app, name="policy", short_help="Show and set the policy of all runs, of a project or of a run.")
app.command("settings")(store.print_settings)

if __name__ == "__main__":
    app()
