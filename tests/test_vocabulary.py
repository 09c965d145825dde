"""Names and texts use the field's words: what was replaced does not come back."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
REPLACED = re.compile(
    r"desks?|deeds?|wishe[sd]|foretold|lull|tamed|relit|outdone|unburst|towering|specimens?|rehears\w+|hindsight|strands?|"
    r"told|stead|dearer|ways_back|brought_up|put_down|laid_out|surroundings|in_the_hand"
)
"""Words of the first release that no engineer would search for; docs/glossary.md has the field's own."""
EXEMPT = (
    "CHANGELOG.md",  # says what was renamed
    "docs/decisions/",  # say why
    "db/migrations/",  # never change
    "tests/test_vocabulary.py",
)
TEXT = (".py", ".md", ".yml", ".toml", ".sh", ".jinja", ".css")


def parts(line: str) -> list[str]:
    """Words of a line, with identifiers split at underscores and capitals."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", line).replace("_", " ").lower().split()


def test_no_replaced_word_is_used_again() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [name for name in listed if name.endswith(TEXT) and not name.startswith(EXEMPT) and (ROOT / name).exists()]
    assert len(files) > 400
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in files
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if REPLACED.search(line.lower())
        and any(REPLACED.fullmatch(word) for word in re.findall(r"[a-z]+", " ".join(parts(line))))
    ]
    assert not found, "\n".join(found)
