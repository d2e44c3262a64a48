"""A plugin for pytest that tells, as it happens, which test begins and how each has ended; gpu.py listens.

--outcomes: the number of an open file, for a line of JSON each. FBNET_TESTS_DONE: a JSON list of tests not to run again.
"""

import json
import os

STATE = {}


def pytest_addoption(parser):
    parser.addoption("--outcomes", type=int, required=True)


def pytest_configure(config):
    STATE["file"] = os.fdopen(config.getoption("--outcomes"), "w", buffering=1, encoding="utf-8")


def pytest_collection_modifyitems(config, items):
    done = set(json.loads(os.environ["FBNET_TESTS_DONE"]))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_runtest_logstart(nodeid, location):
    STATE["test"] = {"test": nodeid, "outcome": "begun", "seconds": 0.0, "note": ""}
    _say()


def pytest_runtest_logreport(report):
    test = STATE["test"]
    test["seconds"] += report.duration
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        test |= {"outcome": "failed", "note": crash.message.partition("\n")[0] if crash else str(report.longrepr)[:300]}
    elif report.skipped:
        reason = report.wasxfail if hasattr(report, "wasxfail") else report.longrepr[2].removeprefix("Skipped: ")
        test |= {"outcome": "skipped", "note": reason}
    elif report.when == "call":
        test |= {"outcome": "passed", "note": "; ".join(f"{name} {value}" for name, value in report.user_properties)}


def pytest_runtest_logfinish(nodeid, location):
    _say()


def _say():
    STATE["file"].write(json.dumps(STATE["test"]) + "\n")
