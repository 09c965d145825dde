"""The tests of the frameworks of docs/frameworks.md, with other releases of them than the newest.

    python -m tests.frameworks [ROW...]            the command of `make test-frameworks`; without ROW, all of them
    python -m tests.frameworks --rows              their names

Each row has a virtual environment of its own below .frameworks/, which is made once and takes about 2 GB.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".frameworks"
ACCELERATE = ("tests/lossguard/test_accelerate.py", "tests/lossguard/guard/data/test_batches.py")
HF = ("tests/lossguard/hf",)
LIGHTNING = ("tests/lossguard/lightning",)
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accelerate-1.0": (("lossguard[accelerate]", "accelerate==1.0.*"), ACCELERATE),
    "accelerate-newest": (("lossguard[accelerate]",), ACCELERATE),
    "transformers-4.57": (("lossguard[hf]", "transformers==4.57.*", "datasets", "tensorboard"), HF),
    "transformers-newest": (("lossguard[hf]", "datasets", "tensorboard"), HF),
    # The bar of rich that Lightning 2.4 brings fails in every fit with a newer rich.
    "lightning-2.4": (("lossguard[lightning]", "lightning==2.4.*", "rich<14.1", "tensorboard"), LIGHTNING),
    "lightning-newest": (("lossguard[lightning]", "tensorboard"), LIGHTNING),
}
"""Name of a row -> what pip installs for it, and the tests that it runs."""
TEST_PACKAGES = (
    "lossguard[trainer,monitor]",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "hypothesis>=6.120",
)


def install(row: str, requirements: tuple[str, ...]) -> Path:
    """The Python of the environment of `row`, which is made if it is missing or was made for other requirements."""
    folder = ENVIRONMENTS / row
    python = folder / "bin" / "python"
    done = folder / ".installed"
    needed = [each.replace("lossguard[", f"{ROOT}[") for each in (*TEST_PACKAGES, *requirements)]
    if not done.exists() or done.read_text() != "\n".join(needed):
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *needed], check=True)
        subprocess.run([*pip, "uninstall", "--yes", "lossguard"], check=True)  # the checkout itself is tested
        done.write_text("\n".join(needed))
    return python


def run(row: str) -> bool:
    """Whether the tests of `row` pass."""
    requirements, tests = ROWS[row]
    python = install(row, requirements)
    print(f"== {row}", flush=True)
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings="]
    return subprocess.run([str(python), "-m", "pytest", *options, *tests], cwd=ROOT, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="*", help="rows to run (default: all)")
    parser.add_argument("--rows", action="store_true", help="print the names of the rows")
    given = parser.parse_args()
    if given.rows:
        print("\n".join(ROWS))
        return 0
    if unknown := set(given.row) - set(ROWS):
        parser.error(f"there is no row {unknown.pop()!r}: choose among {', '.join(ROWS)}")
    failed = [row for row in given.row or ROWS if not run(row)]
    print("failed: " + ", ".join(failed) if failed else "all rows passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
