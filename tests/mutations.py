"""Removes guards from a copy of the code, one at a time, and shows that a test fails without each of them.

    python -m tests.mutations [WORD ..]     all of them (some minutes), or those with a word in their file or test

docs/reference/promises.md lists what the guards keep. One line for each guard; the exit code is 0 only if every test
passes with its guard and fails without it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Guard:
    """A line of `file` that keeps a promise, and what replaces it. `test`: a file of tests/ and the start of a name."""

    file: str
    test: str
    line: str
    without: str = "if False:"


GUARDS = (
    # One process at a time, one order once
    Guard(
        "monitor/ingestion/lease.py",
        "monitor/ingestion/test_lease.py::another_folder_gets_the_lease",
        'is_newer = writer.session > (run.lease_session or "") if is_ours else not is_held(run, claim.now)',
        "is_newer = True",
    ),
    Guard(
        "monitor/ingestion/runs.py",
        "monitor/ingestion/test_runs.py::one_segment_at_most",
        "if (other := queries.segment_of_order(session, order=order)) is not None:",
        "if (other := queries.segment_of_order(session, order=order)) is not None and False:",
    ),
    Guard(
        "monitor/ingestion/runs.py",
        "monitor/ingestion/test_lease.py::a_segment_of_another_process_names_no_order",
        "if about is not None and not about.is_of(claim.digest):",
    ),
    Guard(
        "monitor/ingestion/reports.py",
        "monitor/api/routes/test_runs.py::a_report_is_stored_and_counted_once",
        "new = columns.without(known)",
        "new = columns",
    ),
    Guard(
        "monitor/ingestion/runs.py",
        "monitor/ingestion/test_runs.py::a_run_id_belongs",
        "if run is not None and run.project != spec.project:",
    ),
    Guard(
        "monitor/leader/leadership.py",
        "monitor/leader/test_leadership.py::a_leader_that_cannot_renew",
        "return time.monotonic() < self._valid_until",
        "return self._lease is not None",
    ),
    Guard(
        "monitor/leader/stall_check.py",
        "monitor/leader/test_stall_check.py::a_leader_that_has_lost",
        "if not leader.holds(session, lease):",
    ),
    # Damage is found
    Guard(
        "db/models.py",
        "monitor/ingestion/run_state/test_detection_state.py::a_damaged_state_is_rebuilt",
        "return said if is_intact else None",
        "return said",
    ),
    Guard(
        "lossguard/spool/lines.py",
        "lossguard/spool/test_lines.py::any_flipped_bit",
        "if crc32(line[:-_CHECKSUM_LENGTH]) != int(line[-11:-3], 16):",
    ),
    Guard(
        "lossguard/checkpoints/files.py",
        "lossguard/checkpoints/test_files.py::one_changed_byte_anywhere",
        "if fingerprint(folder / name) != files[name]:",
    ),
    Guard(
        "lossguard/checkpoints/certificate.py",
        "lossguard/guard/test_guard.py::a_restart_resumes_from_before_a_nan",
        "if math.isnan(low):",
    ),
    # What an order may do
    Guard(
        "monitor/ingestion/orders.py",
        "monitor/ingestion/test_orders.py::a_rollback_ends_at_the_ordered_step",
        "if step != order.rewind_to and step not in run.restorable_steps:",
    ),
    Guard(
        "monitor/ingestion/orders.py",
        "monitor/ingestion/test_orders.py::the_skipped_batches",
        "if skip_to - skip_from > MAX_WIDER * (order.skip_to - order.skip_from):",
    ),
    Guard(
        "monitor/ingestion/answers.py",
        "monitor/ingestion/test_answers.py::a_forged_answer",
        "if not hmac.compare_digest(answer.key.encode(), order.key.encode()):",
    ),
    Guard(
        "lossguard/vocabulary/orders.py",
        "lossguard/vocabulary/test_orders.py::an_order_of_which_anything",
        'if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):',
    ),
    Guard(
        "lossguard/vocabulary/limits.py",
        "lossguard/vocabulary/test_limits.py::an_order_beyond_a_limit",
        "if self.max_depth is None or step - rewind_to <= self.max_depth:",
        "if True:",
    ),
    Guard(
        "lossguard/guard/limits_in_force.py",
        "lossguard/guard/test_limits_in_force.py::the_kill_file_ends_obedience",
        "stopped = self._observing or self._killed() or problem",
        "stopped = self._observing or problem",
    ),
    # Who may do what
    Guard(
        "monitor/api/auth.py",
        "monitor/api/test_auth.py::a_token_allows_its_scope_only",
        "if scope not in principal.scopes:",
    ),
    Guard(
        "monitor/api/auth.py",
        "monitor/api/test_auth.py::a_token_bound_to_a_project",
        "self.project in (None, owner.project) and self.run in (None, owner.run)",
        "True",
    ),
    Guard(
        "monitor/api/auth.py",
        "monitor/api/test_auth.py::a_collector_without_tokens",
        "if principal is ANYBODY and not _is_local(request):",
    ),
    Guard(
        "monitor/api/auth.py",
        "monitor/api/test_auth.py::failed_attempts_are_logged",
        "if known.num_failed >= MAX_FAILED_ATTEMPTS:",
    ),
    Guard(
        "db/records/access.py",
        "monitor/api/test_auth.py::a_revoked_token",
        "Token.digest == digest, Token.revoked_at.is_(None)",
        "Token.digest == digest",
    ),
    Guard(
        "monitor/settings.py",
        "monitor/test_settings.py::anything_else_needs_one",
        "if settings.token is None and not has_tokens and not is_loopback(host):",
    ),
    Guard(
        "monitor/actions/decisions.py",
        "monitor/api/test_auth.py::decisions_of_operators_stay",
        'access.record(session, who=who, action="delete", run=run_id, details={}, now=now)',
        "pass",
    ),
    # What is bounded
    Guard(
        "monitor/api/request_limits.py",
        "monitor/api/test_request_limits.py::a_body_beyond_the_limit",
        "if size > settings.max_report_bytes:",
    ),
    Guard(
        "monitor/api/request_limits.py",
        "monitor/api/test_request_limits.py::a_body_with_too_many_values",
        "if num_values > settings.max_values:",
    ),
    Guard(
        "monitor/api/request_limits.py",
        "monitor/api/test_request_limits.py::a_body_that_comes_byte_by_byte",
        "latest = min(now, start + size / settings.min_body_rate) + settings.body_timeout",
        "latest = now + settings.body_timeout",
    ),
    Guard(
        "monitor/api/connections.py",
        "monitor/api/test_connections.py::an_address_gets_its_share",
        "if self._num_of[address] >= self._limit_per_address and not self._is_trusted(address):",
    ),
    Guard(
        "lossguard/client/client.py",
        "lossguard/client/test_client.py::a_compressed_answer",
        'if answer.headers.get("content-encoding", "identity") != "identity":',
    ),
    # What files and pages may do
    Guard(
        "lossguard/checkpoints/files.py",
        "lossguard/checkpoints/test_checkpoints.py::code_in_a_checkpoint",
        'return torch.load(path, "cpu", weights_only=True)',
        'return torch.load(path, "cpu", weights_only=False)',
    ),
    Guard(
        "lossguard/sources/files/source_files.py",
        "lossguard/sources/files/test_source_files.py::a_link_out_of_the_folder",
        "if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):",
        "if True:",
    ),
    Guard(
        "lossguard/client/tables.py",
        "lossguard/client/test_tables.py::a_name_comes_back",
        """return f"'{column}" if _FORMULA.match(column) else column""",
        "return column",
    ),
    Guard(
        "lossguard/vocabulary/secrets.py",
        "lossguard/vocabulary/test_secrets.py::a_secret_of_a_command_line",
        'MASK if follows_name and not argument.startswith("--") else mask_text(argument)',
        "mask_text(argument)",
    ),
    Guard(
        "lossguard/spool/folders.py",
        "lossguard/spool/test_folders.py::a_new_file_is_its_owners",
        "FILE_MODE = 0o600",
        "FILE_MODE = 0o666",
    ),
    Guard(
        "dashboard/allowed_hosts.py",
        "dashboard/test_allowed_hosts.py::foreign_names",
        "return is_own and all(_place(origin) == hosts[0].lower() for origin in origins)",
        "return True",
    ),
    Guard(
        "dashboard/security_headers.py",
        "dashboard/test_server.py::every_answer_forbids_frames",
        "headers.setdefault(name, value)",
        "pass",
    ),
)


def run(copy: Path, *tests: str) -> tuple[bool, str]:
    """Whether the tests pass on the code in `copy`, and what pytest said. Raises RuntimeError if they do not run."""
    files, names = zip(*(test.split("::") for test in tests), strict=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    chosen = [*dict.fromkeys(f"tests/{file}" for file in files), "-k", " or ".join(f"test_{name}" for name in names)]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command + chosen, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{', '.join(tests)} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0, done.stdout


def is_noticed(guard: Guard, copy: Path) -> bool:
    """Whether the test fails without its guard."""
    path = copy / guard.file
    whole = path.read_text(encoding="utf-8")
    assert whole.count(guard.line) == 1, guard
    path.write_text(whole.replace(guard.line, guard.without), encoding="utf-8")
    try:
        return not run(copy, guard.test)[0]
    finally:
        path.write_text(whole, encoding="utf-8")


def main(words: list[str]) -> int:
    chosen = [one for one in GUARDS if not words or any(word in f"{one.file} {one.test}" for word in words)]
    if not chosen:
        print(f"no guard has {' or '.join(words)} in its file or its test")
        return 1
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
        passed, said = run(Path(folder), *(guard.test for guard in chosen))
        if not passed:
            print(f"with all guards, a test fails:\n{said}")
            return 1
        unnoticed = 0
        for guard in chosen:
            noticed = is_noticed(guard, Path(folder))
            unnoticed += not noticed
            print(f"{guard.file}: {guard.test}: {'fails' if noticed else 'PASSES'} without it", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} guards are proved")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
