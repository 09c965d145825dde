"""Serve the dashboard.

python -m dashboard                                   on http://127.0.0.1:8501, from the embedded store
python -m dashboard --port 8600 --database postgresql://lossguard@db/lossguard
python -m dashboard report RUN -o report.html -o report.pdf       writes a run's report to files
"""

from lossguard.run.interrupts import quiet_interrupts

with quiet_interrupts():
    import os
    import socket
    import sys
    from pathlib import Path
    from typing import Annotated, Any

    import typer
    from sqlalchemy.exc import SQLAlchemyError

    from dashboard.allowed_hosts import HOSTS_VARIABLE, BadHostName, parse_names
    from dashboard.login import LOGIN_VARIABLE, BadLogin
    from dashboard.login import read as read_login
    from dashboard.operator_actions import OPERATE_VARIABLE
    from dashboard.report.command import Database, report
    from db.cli.command_engine import as_typed_here
    from db.store.engine import DEFAULT_URL, BadDatabaseUrl, create_engine
    from lossguard.vocabulary.secrets import is_loopback

THEMES = {
    "theme.light.primaryColor": "#0072B2",  # blue and sky blue of Okabe and Ito, the colours of the live line
    "theme.dark.primaryColor": "#56B4E9",
    "theme.headingFontSizes": ["1.9rem", "1.6rem", "1.25rem", "1.1rem", "1rem", "1rem"],
    "theme.metricValueFontSize": "1.4rem",
}

Operate = Annotated[
    bool | None,
    typer.Option(
        help="Let every viewer act with the dashboard's LOSSGUARD_TOKEN, or no viewer. "
        "By default only viewers on this machine can."
    ),
]

Hosts = Annotated[
    str,
    typer.Option(
        envvar=HOSTS_VARIABLE,
        metavar="NAMES",
        help="Host names of the dashboard besides localhost and IP addresses, separated by commas.",
    ),
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command("report")(report)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    database: Database = DEFAULT_URL,
    operate: Operate = None,
    hosts: Hosts = "",
    login: Annotated[
        str,
        typer.Option(
            envvar=LOGIN_VARIABLE,
            metavar="FILE",
            help="A TOML file: viewers log in with OpenID Connect, and groups have scopes.",
        ),
    ] = "",
    open_to_network: Annotated[
        bool,
        typer.Option("--open-to-network", help="Listen on a network address although there is no login."),
    ] = False,
) -> None:
    """Serve the dashboard until Ctrl-C. It sends operators' decisions to the collector at LOSSGUARD_URL."""
    if context.invoked_subcommand is not None:
        os.environ["LOSSGUARD_DATABASE_URL"] = database  # the option may also stand before the subcommand
        return
    if login:
        try:
            read_login(Path(login))
            if Path(login).stat().st_mode & 0o077:
                _complain(f"others can read {login}, which has secrets: chmod 600 it")
        except BadLogin as error:
            _refuse(str(error))
    if not (login or open_to_network or is_loopback(host)):
        _refuse(
            f"the dashboard has no login, so it listens on loopback only, not on {host}; "
            "let viewers log in (--login FILE), put an authenticating proxy in front of it, or pass --open-to-network"
        )
    try:
        parse_names(hosts)
    except BadHostName as error:
        _refuse(str(error))
    try:
        create_engine(database).dispose()
    except (BadDatabaseUrl, SQLAlchemyError) as error:
        _refuse(f"LOSSGUARD_DATABASE_URL / --database: {error}")
    try:
        _check_free(host, port)
    except OSError as error:
        _refuse(f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port")
    os.environ["LOSSGUARD_DATABASE_URL"] = database  # Streamlit scripts take no arguments
    os.environ[HOSTS_VARIABLE] = hosts
    os.environ[LOGIN_VARIABLE] = login and str(Path(login).absolute())
    if operate is not None:
        os.environ[OPERATE_VARIABLE] = str(int(operate))
    from dashboard.server import app as web_app  # imported late: Streamlit takes a second, an error message should not

    web_app.run(config=_config(host, port) | ({"secrets.files": [os.environ[LOGIN_VARIABLE]]} if login else {}))


def _config(host: str, port: int) -> dict[str, Any]:
    from dashboard.upload_limits import MAX_FILE_MIB

    return {
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.maxUploadSize": MAX_FILE_MIB,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "runner.magicEnabled": False,
        "runner.postScriptGC": False,  # it would block all viewers for 0.1 s after every refresh of a live page
        # The detector lab sets its sliders anew when another run is selected.
        "global.disableWidgetStateDuplicationWarning": True,
        "client.toolbarMode": "minimal",  # the menu: the theme, and "About"
        "client.allowedOrigins": [],  # no page may send messages to ours: none may frame it
        **THEMES,
    }


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _refuse(reason: str) -> None:
    _complain(reason)
    raise SystemExit(2)


def _complain(sentence: str) -> None:
    print(as_typed_here(f"python -m dashboard: {sentence}"), file=sys.stderr)


if __name__ == "__main__":
    app()
