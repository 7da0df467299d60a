"""Tells the Autobahn suite what to test, and says whether what came of it is good.

judge.py spec URL REPORTS   prints the suite's specification
judge.py judge REPORTS      exits 1 unless every case of the groups was run and is good
judge.py self-test          shows the judge reports that it must refuse
"""

import collections
import json
import os
import sys

# Groups 8 (moved), 9 (megabytes, over our limit), 11 to 13 (compression, which we do not offer) are left out.
CASES = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1}
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def spec(url, reports):
    return {
        "outdir": os.path.abspath(reports),
        "servers": [{"agent": "adda", "url": url}],
        "cases": [f"{group}.*" for group in CASES],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }


def verdict(index):
    """The cases that are not good, each in a line, and the groups that were not run whole."""
    if len(index) != 1:
        return [f"reports of {len(index)} servers where there should be one"]
    (cases,) = index.values()
    bad = [
        f"{case}: {result.get('behavior')}, close {result.get('behaviorClose')}"
        for case, result in cases.items()
        if not {result.get("behavior"), result.get("behaviorClose")} <= GOOD
    ]
    ran = collections.Counter(case.split(".")[0] for case in cases)
    bad += [f"group {group}: {ran[group]} of {count} cases" for group, count in CASES.items() if ran[group] != count]
    return bad


def self_test():
    def report(**changes):
        names = [f"{group}.{number}" for group, count in CASES.items() for number in range(count)]
        cases = {name: {"behavior": "OK", "behaviorClose": "OK"} for name in names}
        cases["1.0"].update(changes)
        return {"adda": cases}

    assert verdict(report()) == []
    assert verdict(report(behavior="NON-STRICT", behaviorClose="INFORMATIONAL")) == []
    for behavior in ("FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "UNIMPLEMENTED", None):
        assert verdict(report(behavior=behavior)), behavior
        assert verdict(report(behaviorClose=behavior)), behavior
    assert verdict({})
    missing = report()
    del missing["adda"]["10.0"]
    assert verdict(missing) == ["group 10: 0 of 1 cases"]


def main():
    match sys.argv[1:]:
        case ["spec", url, reports]:
            print(json.dumps(spec(url, reports)))
        case ["judge", reports]:
            self_test()
            with open(os.path.join(reports, "index.json"), encoding="utf-8") as file:
                index = json.load(file)
            bad = verdict(index)
            behaviors = collections.Counter(case["behavior"] for cases in index.values() for case in cases.values())
            print(", ".join(f"{count} {behavior}" for behavior, count in behaviors.most_common()))
            if bad:
                sys.exit("\n".join(bad))
            print("Autobahn: all good.")
        case ["self-test"]:
            self_test()
        case _:
            sys.exit(__doc__)


main()
