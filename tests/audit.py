"""Checks every installed package against the published advisories, with pip-audit.

    python -m tests.audit            the command of `make audit`; installs pip-audit into a temporary environment

Exit codes: 0 if no package has a known vulnerability; 1 if one has; 3 if not all packages could be checked.
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

CLEAN, VULNERABLE, UNCHECKED = 0, 1, 3


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """(exit code, sentences) for a report of pip-audit; a skipped package does not count as clean."""
    packages = report["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    sentences = [_describe(package, found) for package in packages for found in package.get("vulns", [])]
    if skipped and len(skipped) == len(packages):
        reason = skipped[0]["skip_reason"]
        return UNCHECKED, [f"the advisories cannot be reached from here, so nothing was checked ({reason})"]
    if skipped:
        sentences.append("not checked: " + ", ".join(f"{one['name']} ({one['skip_reason']})" for one in skipped))
    checked = f"{len(packages) - len(skipped)} packages were checked"
    if any(package.get("vulns") for package in packages):
        return VULNERABLE, [*sentences, checked]
    return (UNCHECKED if skipped else CLEAN), [*sentences, f"{checked}; no vulnerability is known"]


def _describe(package: dict[str, Any], found: dict[str, Any]) -> str:
    fixed = ", ".join(found["fix_versions"]) or "no version yet"
    return f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}"


def installed() -> list[str]:
    """name==version of every package of this environment except our own, without local versions such as +cpu."""
    command = [sys.executable, "-m", "pip", "freeze", "--disable-pip-version-check", "--exclude-editable"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.partition("+")[0] for line in lines if re.match(r"[A-Za-z0-9._-]+==", line)]


def pip_audit(folder: Path, packages: list[str]) -> dict[str, Any]:
    """The report of pip-audit on these packages. Raises RuntimeError if there is none."""
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
        code, sentences = UNCHECKED, [str(error)]
    for sentence in sentences:
        print(f"audit: {sentence}", file=sys.stdout if code == CLEAN else sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
