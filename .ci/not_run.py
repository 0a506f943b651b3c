"""List the tests that no run has run, with the reasons: ``python .ci/not_run.py FOLDER`` of JUnit reports."""

import collections
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main() -> int:
    """Print them by reason; fail if there is no report, which would make all of this silent."""
    reports = sorted(Path(sys.argv[1]).glob("*.xml"))
    run: set[tuple[str, str]] = set()
    skipped: dict[tuple[str, str], str] = {}
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            # run from elsewhere, a module has the same name
            name = case.get("classname", ""), case.get("name", "")
            why = case.find("skipped")
            if why is None:
                run.add(name)
            else:
                skipped[name] = why.get("message", "")
    never = {name: why for name, why in skipped.items() if name not in run}
    print(f"{len(run)} tests have been run in {len(reports)} runs, {len(never)} in none:")
    by_reason = collections.Counter((why, module) for (module, _), why in never.items())
    for (why, module), count in sorted(by_reason.items()):
        print(f"{count:5} {module}: {why}")
    return 0 if run else 1


if __name__ == "__main__":
    sys.exit(main())
