"""An MLflow client's side of the protocol, request by request."""

from collections.abc import Mapping, Sequence
from typing import Any

from lossguard.vocabulary.protocol import API, encode_number
from monitor.problems import MLFLOW_API
from tests.monitor.client import NOW, TestClient


class MlflowClient:
    """Creates a run and logs to it. Times are seconds since NOW."""

    def __init__(self, http: TestClient, **values: Any) -> None:
        self.http = http
        self.run_id: str = self.post("runs/create", **{"start_time": int(NOW * 1000), **values})["run"]["info"][
            "run_id"
        ]

    def post(self, route: str, *, answered: int = 200, **body: Any) -> Any:
        answer = self.http.post(f"{MLFLOW_API}/{route}", json=body)
        assert answer.status_code == answered, answer.text
        return answer.json()

    def get(self, route: str, **query: Any) -> Any:
        answer = self.http.get(f"{MLFLOW_API}/{route}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def log(self, key: str, value: float, *, step: int, at: float | None = None, answered: int = 200) -> Any:
        timestamp = round((NOW + (step if at is None else at)) * 1000)
        body = {"key": key, "value": encode_number(value), "timestamp": timestamp, "step": step}
        return self.post("runs/log-metric", answered=answered, run_id=self.run_id, **body)

    def log_rows(self, first: int, columns: Mapping[str, Sequence[float]], *, at: float | None = None) -> None:
        """Metrics of consecutive steps in one request; step `first` was logged `at`."""
        start = NOW + (first if at is None else at)
        metrics = [
            {
                "key": key,
                "value": encode_number(value),
                "timestamp": round((start + index) * 1000),
                "step": first + index,
            }
            for key, values in columns.items()
            for index, value in enumerate(values)
        ]
        self.post("runs/log-batch", run_id=self.run_id, metrics=metrics)

    def end(self, status: str = "FINISHED") -> Any:
        return self.post("runs/update", run_id=self.run_id, status=status, end_time=round((NOW + 900) * 1000))

    def shown(self) -> dict[str, Any]:
        """The run as an MLflow client reads it."""
        run: dict[str, Any] = self.get("runs/get", run_id=self.run_id)["run"]
        return run

    def run(self, part: str = "", **query: Any) -> Any:
        """The run as the collector's own API shows it."""
        answer = self.http.get(f"{API}/runs/{self.run_id}{part}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()
