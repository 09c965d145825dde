"""A secret on a command line, in a URL or in a configuration is recorded as ***; everything else stays as it is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.secrets import host_of, is_loopback, is_secret_name, mask_command, mask_json, mask_text

SECRET = "Zq81xYvLmT93kd"


SECRETS = f"""
--token {SECRET}
--token={SECRET}
--api-key {SECRET}
--api_key={SECRET}
password={SECRET}
HF_TOKEN={SECRET}
model.hub.apiKey={SECRET}
--wandb-key {SECRET}
AWS_SECRET_ACCESS_KEY={SECRET}
--db=postgresql://user:{SECRET}@host/name
--checkpoints=sftp://user:a/{SECRET}@host/name
--db=postgresql://user:a@{SECRET}@host/name
--checkpoints=sftp://user:a/b@{SECRET}@host/name
https://host/data?x=1&token={SECRET}&y=2
https://host/data?X-Amz-Signature={SECRET}
https://account.blob.core.windows.net/c?sv=1&sig={SECRET}
hf_{SECRET}
sk-{SECRET}
ghp_{SECRET}{SECRET}
AKIAIOSFODNN7EXAMPLE
--auth-token -{SECRET}
--set=hub.token={SECRET}
""".split("\n")[1:-1]
WITH_BLANKS = [
    [f"--header=Authorization: Bearer {SECRET}"],
    [f"--header=Authorization: Basic {SECRET}"],
    [f'{{"api_key": "{SECRET}", "lr": 1}}'],
    ["-c", f'import os; os.environ["HF_TOKEN"] = "{SECRET}"'],
    ["-c", f"login(token='{SECRET}')"],
]


@pytest.mark.parametrize("arguments", [*(line.split() for line in SECRETS), *WITH_BLANKS], ids=" ".join)
def test_a_secret_of_a_command_line_is_masked(arguments: list[str]) -> None:
    masked = " ".join(mask_command(arguments))
    assert SECRET not in masked
    assert "AKIAIOSFODNN7EXAMPLE" not in masked
    assert "***" in masked


NO_SECRETS = (
    "python train.py --tokenizer gpt2 --max-tokens 100 --lr=3e-4",
    "--pad-token <pad> --eos_token=</s> --bos-token <s> --mask_token=<mask>",
    "--tokens-per-step=1024 loss_per_token=1 --token-budget 5",
    "--token --verbose",
    "--keys a,b --key=value --monkey see",
    "https://host:8000/path?step=3 git@github.com:me/repo.git s3://bucket/key",
    "http://host:8000/path@2 s3://bucket/key@2",
    "-m torch.distributed.run --rdzv-endpoint=host:29500",
    "--mode basic pretraining_run.py --region=kansas --compat on",
    "--commit 3f786850e387550fdab836ed7e6dc881de23001b",
)


@pytest.mark.parametrize("line", NO_SECRETS)
def test_what_is_no_secret_stays(line: str) -> None:
    assert mask_command(line.split()) == line.split()


def test_a_configuration_keeps_its_shape_and_its_numbers() -> None:
    config = {
        "optimizer": {"lr": 0.1, "token": 5},
        "hub": {"hf_token": SECRET, "user": "ada", "password": ""},
        "secrets": [SECRET, {"a": SECRET}],
        "data": f"https://ada:{SECRET}@host/set",
        "eos_token": "</s>",
        "hub_token": "<HUB_TOKEN>",
        "command": ["--token", "x"],
    }
    assert mask_json(config) == {
        "optimizer": {"lr": 0.1, "token": 5},
        "hub": {"hf_token": "***", "user": "ada", "password": ""},
        "secrets": ["***", {"a": "***"}],
        "data": "https://***@host/set",
        "eos_token": "</s>",
        "hub_token": "<HUB_TOKEN>",  # what the arguments of Hugging Face have in place of a token
        "command": ["--token", "x"],
    }


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_text(mask_text(text)) == mask_text(text)


@pytest.mark.parametrize("name", ["password", "DB_PASSWORD", "apiKey", "x-api-key", "hf.token", "clientSecret"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


def test_a_long_word_costs_no_more_than_its_length() -> None:
    begin = time.process_time()
    mask_text("a" * 1_000_000 + "=1")
    mask_text("s3://b:c" * 20_000)
    assert time.process_time() - begin < 5.0, "a quadratic search would take hours"


def test_the_key_that_signs_orders_is_a_secret() -> None:
    assert mask_text("LOSSGUARD_ORDER_KEY=0123456789abcdef python t.py") == "LOSSGUARD_ORDER_KEY=*** python t.py"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("host", False)],
)
def test_loopback_is_known_by_address_and_by_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_host_of_an_address_that_cannot_be_parsed_is_empty() -> None:
    assert [host_of(url) for url in ("http://h:1/a", "//[::1]:80", "http://[::1", "")] == ["h", "::1", "", ""]
