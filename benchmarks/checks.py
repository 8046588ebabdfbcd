"""What is caught before sampling: every sabotage of tests/checks carried out, and the page docs/checks.md of it.

python benchmarks/checks.py
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(ROOT / "tests" / place) for place in ("", "checks", "bundle", "encoders", "tasks")]


def main() -> None:
    from carried_out import outcomes, page, share

    with tempfile.TemporaryDirectory() as place:
        found = outcomes(Path(place))
    (ROOT / "docs" / "checks.md").write_text(page(found), encoding="utf-8")
    print(f"{len(found)} sabotages, {share(found):.1%} caught before sampling: docs/checks.md")


if __name__ == "__main__":
    main()
