import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from lossguard.torch import checkpoints_in
from lossguard.vocabulary.wire import Probe
from tests.trainer.small import small_recipe
from trainer.config import DataConfig, ModelConfig
from trainer.data.tokenizer import Ids
from trainer.errors import UsageError
from trainer.explore import Explored, Explorer
from trainer.model import GPT
from trainer.train import Job, train


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for the checkpoints of a run on bytes and of one on byte pairs."""
    folder = tmp_path_factory.mktemp("explore")
    explored = []
    for name, size in (("", 256), ("bpe:270", 270)):
        model = ModelConfig(layers=1, heads=1, width=16, context=8, vocab_size=size)
        text = small_recipe(folder).data.path
        recipe = small_recipe(folder, model=model, steps=5, data=DataConfig(path=text, batch_size=4, tokenizer=name))
        train(recipe, Job(directory=folder, run_id=f"on-{size}", mode="offline", quiet=True))
        explored.append(Explored.at(checkpoints_in(folder / recipe.project / f"on-{size}" / "checkpoints")[5]))
    with Explorer(explored, port=0) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _asked(address: str, body: Any, path: str = "/next-token", **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(address + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def test_a_prompt_is_answered_with_the_distribution_of_each_checkpoint(address: str) -> None:
    status, answer = _asked(address, {"prompt": "9 bottles"})
    assert status == 200
    names = [each["name"] for each in answer["models"]]
    assert names == ["on-256 / step-000000005", "on-270 / step-000000005"]
    plain, pairs = (Probe.from_details(each["probe"]) for each in answer["models"])
    assert (plain.prompt, plain.target, len(plain.tokens)) == ("9 bottle", "s", 256)
    assert (len(pairs.tokens), pairs.rest_count) == (64, 206)
    assert plain.entropy is not None


def test_a_prompt_that_cannot_be_used_gets_a_sentence(address: str) -> None:
    assert _asked(address, {"prompt": "x"}) == (
        400,
        {"error": "The prompt is too short: its last token is the one to predict."},
    )
    for body in ({"prompt": 3}, {"prompt": "x" * 5000}, {}):
        status, answer = _asked(address, body)
        assert (status, answer["error"][:14]) == (400, "Send an object")


@pytest.mark.parametrize("prompt", ["-1 3", "3 256"])
def test_an_id_outside_of_the_vocabulary_is_refused_in_a_sentence(prompt: str) -> None:
    model = GPT(ModelConfig(layers=1, heads=1, width=16, context=8, vocab_size=256))
    with pytest.raises(UsageError, match="a token that the model does not know"):
        Explored("ids", model, Ids(None)).answer(prompt)


def test_web_pages_and_other_hosts_are_refused(address: str) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        assert _asked(address, {"prompt": "9 bottles"}, **headers)[0] == 403
    assert _asked(address, {"prompt": "9 bottles"}, path="/other")[0] == 403
