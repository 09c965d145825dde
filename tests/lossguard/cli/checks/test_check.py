import argparse

from lossguard.cli.checks.check import set_variables


def test_an_option_takes_precedence_and_no_secret_is_shown() -> None:
    options = argparse.Namespace(url="http://a:1", token=None, directory=None)
    environment = {"LOSSGUARD_URL": "http://b:2", "LOSSGUARD_TOKEN": "lg_abc", "LOSSGUARD_ORDER_KEY": "k" * 32}
    shown = {each["name"]: (each["value"], each["from"]) for each in set_variables(options, environment)}
    assert shown["LOSSGUARD_URL"] == ("http://a:1", "--url")
    assert shown["LOSSGUARD_TOKEN"] == ("(6 characters)", "environment")
    assert shown["LOSSGUARD_ORDER_KEY"] == ("(32 characters)", "environment")
    assert shown["LOSSGUARD_DIR"] == ("-", "not set")
