"""Looks up every package that is installed here in the published advisories, with pip-audit.

    python -m tests.audit            what `make audit` runs; pip-audit is installed into a folder of its own

Exit 0: each was looked up, and nothing is known of any; 1: something is known; 3: they could not all be looked up.
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

CLEAN, KNOWN, UNKNOWN = 0, 1, 3


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """(exit code, sentences) of what pip-audit found; what it passed over is not clean."""
    packages = report["dependencies"]
    passed_over = [package for package in packages if "skip_reason" in package]
    known = [_told(package, found) for package in packages for found in package.get("vulns", [])]
    if passed_over and len(passed_over) == len(packages):
        reason = passed_over[0]["skip_reason"]
        return UNKNOWN, [f"the advisories cannot be reached from here, so nothing was checked ({reason})"]
    if passed_over:
        known.append("not looked up: " + ", ".join(f"{one['name']} ({one['skip_reason']})" for one in passed_over))
    checked = f"{len(packages) - len(passed_over)} packages were looked up"
    if any(package.get("vulns") for package in packages):
        return KNOWN, [*known, checked]
    return (UNKNOWN if passed_over else CLEAN), [*known, f"{checked}; nothing is known of them"]


def _told(package: dict[str, Any], found: dict[str, Any]) -> str:
    mended = ", ".join(found["fix_versions"]) or "no version yet"
    return f"{package['name']} {package['version']}: {found['id']}, mended in {mended}"


def installed() -> list[str]:
    """name==version of every package of this environment but our own, and without local versions such as +cpu."""
    command = [sys.executable, "-m", "pip", "freeze", "--disable-pip-version-check", "--exclude-editable"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.partition("+")[0] for line in lines if re.match(r"[A-Za-z0-9._-]+==", line)]


def pip_audit(folder: Path, packages: list[str]) -> dict[str, Any]:
    """What it says of these packages. Raises RuntimeError when it says nothing."""
    (folder / "packages").write_text("\n".join(packages))
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv/bin/python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"pip-audit cannot be installed here: {_last_line(made.stderr)}")
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
    command = [python, "-m", "pip_audit", "--requirement", str(folder / "packages"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(ran.stdout)
    except ValueError:
        raise RuntimeError(f"the advisories cannot be reached from here: {_last_line(ran.stderr)}") from None
    return report


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[-1]


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            code, sentences = verdict(pip_audit(Path(folder), installed()))
    except RuntimeError as error:
        code, sentences = UNKNOWN, [str(error)]
    for sentence in sentences:
        print(f"audit: {sentence}", file=sys.stdout if code == CLEAN else sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
