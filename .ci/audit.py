"""Look up the installed run-time dependencies in a list of known vulnerabilities; say so loudly where that cannot be.

Exit status 1 where one is vulnerable. A machine without access to the list skips the check, and says what it skipped.
"""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "numba", "llvmlite")


def main() -> int:
    """Run pip-audit on the versions that are installed here."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(f"{name}=={version(name)}\n" for name in PACKAGES))
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "-r", str(wanted), "-f", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            found = json.loads(done.stdout)["dependencies"]
        except subprocess.TimeoutExpired:
            found = [{"name": name, "skip_reason": "pip-audit gave no answer in two minutes"} for name in PACKAGES]
        except (ValueError, KeyError):
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            found = [{"name": name, "skip_reason": f"pip-audit gave no answer: {reason}"} for name in PACKAGES]
    bad = 0
    for one in found:
        if "skip_reason" in one:
            print(f"SKIPPED, NOT AUDITED: {one['name']}: {one['skip_reason']}")
            continue
        print(f"{one['name']} {one['version']}: {len(one['vulns'])} known vulnerabilities")
        for each in one["vulns"]:
            bad += 1
            print(f"  {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version yet'}")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
