"""Answers each line on standard input with the seconds that py-ctcmetrics takes for a folder, and its TRA and CHOTA."""
import argparse
import contextlib
import os
import sys
import time

from ctc_metrics.metrics import ALL_METRICS
from ctc_metrics.scripts.evaluate import evaluate_sequence


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result")
    parser.add_argument("ground_truth")
    arguments = parser.parse_args()
    answers = sys.stdout
    for line in sys.stdin:
        threads = int(line)  # 1, or 0 for one process for each core
        start = time.perf_counter()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            scores = evaluate_sequence(arguments.result, arguments.ground_truth, list(ALL_METRICS), threads)
        print(time.perf_counter() - start, scores["TRA"], scores["CHOTA"], file=answers, flush=True)


if __name__ == "__main__":
    main()
