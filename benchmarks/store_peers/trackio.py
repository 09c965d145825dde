"""trackio's costs: the functions of its store, in a process of its own without HTTP; its server calls the same ones."""

import json
import os
import subprocess
from pathlib import Path

from benchmarks.store_peers.costs import CALLS, METRICS, Found, Sizes

PACKAGES = ("trackio",)

CODE = """
import json, sqlite3, sys, time
from trackio.server import get_runs_for_project
from trackio.sqlite_storage import SQLiteStorage as store

names, sizes, calls = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])

def values(step):
    return {name: 1.0 + step / 7 for name in names}

def log(project, run, steps, size=1000):
    for first in range(0, len(steps), size):
        some = steps[first : first + size]
        store.bulk_log(project, run, [values(step) for step in some], steps=list(some), run_id=run)

def num_bytes(project):
    with sqlite3.connect(store.get_project_db_path(project)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store.get_project_db_path(project).stat().st_size

def copy(project, run, count):
    with sqlite3.connect(store.get_project_db_path(project)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(metrics)")]
        others = ", ".join(one for one in columns if one not in ("id", "run_id", "run_name", "log_id"))
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1})"
        connection.execute(f"INSERT INTO metrics (run_id, run_name, {others}) {numbers} "
                           f"SELECT 'r' || i, 'r' || i, {others} FROM n, metrics WHERE run_id = ?", (run,))

def cost(call, calls=1):
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls

found = {}
log("reports", "r", range(1))
steps = iter(range(1, 10**9))
found["report"] = 1e6 * cost(lambda: log("reports", "r", [next(steps)]), sizes["reports"])
log("steps", "r", range(1))
before = num_bytes("steps")
log("steps", "r", range(1, sizes["steps"]))
found["bytes"] = (num_bytes("steps") - before) / sizes["steps"]
curve = lambda: [row["loss"] for row in store.get_logs("steps", "r", run_id="r")]
assert len(curve()) == sizes["steps"]
found["curve"] = 1e6 * cost(curve, 3) / sizes["steps"]
log("runs", "r", range(1))
copy("runs", "r", sizes["runs"])
assert len(get_runs_for_project("runs")) == sizes["runs"]
found["page"] = 1e3 * cost(lambda: get_runs_for_project("runs"), calls)
log("old", "r", range(sizes["deleted_steps"]))
copy("old", "r", sizes["deleted"])
records = get_runs_for_project("old")
assert len(records) == sizes["deleted"]
delete = lambda: [store.delete_run("old", record["name"], run_id=record["id"]) for record in records]
found["deletion"] = 1e3 * cost(delete) / sizes["deleted"]
assert not get_runs_for_project("old")
print("measured", json.dumps(found), flush=True)
"""


def measure(python: Path, folder: Path, sizes: Sizes) -> Found:
    """It has no search: its pages filter the list of all runs."""
    environment = os.environ | {"HOME": str(folder), "TRACKIO_DIR": str(folder / "trackio")}
    sized = {name: getattr(sizes, name) for name in ("reports", "steps", "runs", "deleted", "deleted_steps")}
    command = [str(python), "-c", CODE, json.dumps(METRICS), json.dumps(sized), str(CALLS)]
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    for line in ran.stdout.splitlines():
        if line.startswith("measured "):
            found: Found = json.loads(line.partition(" ")[2])
            return found
    raise RuntimeError(f"trackio did not run: {ran.stderr.strip().splitlines()[-1:]}")
