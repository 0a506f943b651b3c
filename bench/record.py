"""Record everything on this machine: ``python bench/record.py``, in less than 15 minutes, on an idle machine.

Writes ``bench/results/<machine>.json``; ``python bench/report.py`` makes tables and plots of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import results

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run the suite with its times on, and keep medians and quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", default="1.0", help="seconds for each case")
    parser.add_argument("--huge", action="store_true", help="sizes up to 1e8 elements too")
    parser.add_argument("--threads", help="threads for everyone")
    parser.add_argument("--output", type=Path, help="default: bench/results/<machine>.json")
    parser.add_argument("-k", dest="chosen", help="only some tests, as in pytest; for trying out, with --output")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from fastrelu._bench import machine

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", "bench", "-q", "--no-header", "--benchmark-enable"]
        command += ["--benchmark-quiet", f"--benchmark-json={raw}", f"--seconds={given.seconds}"]
        command += ["--huge"] * given.huge + ([f"--threads={given.threads}"] if given.threads else [])
        command += ["-k", given.chosen] if given.chosen else []
        status = subprocess.run(command, cwd=ROOT).returncode
        if status:
            return status
        result = results.compact(json.loads(raw.read_text()))
    path = given.output or results.FOLDER / f"{machine.slug(result['machine'])}.json"
    results.save(result, path)
    print(f"{path}: {len(result['cases'])} measurements in {(time.monotonic() - start) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
