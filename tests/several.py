#!/usr/bin/env python3
"""Runs the workspace's test programs, several at a time: they wait more than they work.

    tests/several.py AT_ONCE [ARGUMENT of cargo test...]

What each prints appears whole, when it has ended. Exit status 1 if one failed or none could be built.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import time


def build(arguments):
    """The programs, each with the directory of its package, where cargo would run it."""
    command = ["cargo", "test", *arguments, "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        sys.exit(1)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    return [
        (message["executable"], message["target"]["src_path"], os.path.dirname(message["manifest_path"]))
        for message in messages
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]
    ]


def run(program):
    """What it printed, whether it passed, and how many seconds it took."""
    executable, source, package = program
    began = time.monotonic()
    ended = subprocess.run(
        [executable],
        cwd=package,
        env={**os.environ, "CARGO_MANIFEST_DIR": package},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seconds = time.monotonic() - began
    where = f"{os.path.relpath(source)} ({os.path.relpath(executable)})"
    return f"     Running {where}\n{ended.stdout}", where, ended.returncode, seconds


def main():
    at_once, *arguments = sys.argv[1:]
    programs = build(arguments)
    failed = []
    # The ones with the whole binary take the longest, so they begin first.
    programs.sort(key=lambda program: (program[2] != os.getcwd(), program[1]))
    with concurrent.futures.ThreadPoolExecutor(int(at_once)) as pool:
        for done in concurrent.futures.as_completed([pool.submit(run, program) for program in programs]):
            printed, where, code, seconds = done.result()
            print(printed, end="", flush=True)
            print(f"     {'Passed' if code == 0 else 'Failed'} after {seconds:.1f} s: {where}", flush=True)
            if code != 0:
                failed.append(where)
    for where in failed:
        print(f"error: test failed: {where}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
