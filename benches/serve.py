#!/usr/bin/env python3
"""Measures the running server: start to first reply, idle memory, replies during a prediction, abort.

    python benches/serve.py target/release/elephant-server

Starts the server on an empty workspace with the demo. Needs only Python.
"""
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

binary = sys.argv[1]
PORT = 18099


def request(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def start(workspace, *arguments):
    begun = time.perf_counter()
    process = subprocess.Popen([binary, "serve", "--workspace", workspace, "--bind", f"127.0.0.1:{PORT}", *arguments],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            request("GET", "/state/gpus")
            return process, time.perf_counter() - begun
        except OSError:
            time.sleep(0.002)


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait()


def memory_mib(process):
    status = open(f"/proc/{process.pid}/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


with tempfile.TemporaryDirectory() as workspace:
    process, first = start(workspace, "--demo")
    print(f"start with the demo to be made: {first:.2f} s")
    stop(process)
    times = []
    for _ in range(5):
        process, seconds = start(workspace)
        times.append(seconds)
        idle = memory_mib(process)
        stop(process)
    print(f"start to first answer: median {statistics.median(times):.3f} s, worst {max(times):.3f} s")
    process, _ = start(workspace)
    time.sleep(1)
    print(f"idle memory: {memory_mib(process):.0f} MiB")
    request("POST", "/seg/reset", {"model_name": "detection.pth", "url": None})
    body = {"dataset_name": "elephant-demo", "timepoint": 0, "scales": [0.5, 0.5, 2], "n_keep_axials": 2,
            "input_size": [768, 768, 64], "patch": [384, 384, 24], "is_pad": True}
    prediction = threading.Thread(target=lambda: print("aborted reply:", request("POST", "/seg/predict", body)[1][:60]))
    prediction.start()
    while json.loads(request("GET", "/state/process")[1])["state"] != 2:
        pass
    latencies = []
    for _ in range(300):
        begun = time.perf_counter()
        assert request("GET", "/state/gpus")[0] == 200
        latencies.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.03)
    latencies.sort()
    print(f"GET /state/gpus during a prediction: median {statistics.median(latencies):.1f} ms, "
          f"p99 {latencies[int(len(latencies) * 0.99)]:.1f} ms, worst {latencies[-1]:.1f} ms")
    print(f"memory during a prediction with 24 x 384 x 384 patches: {memory_mib(process):.0f} MiB")
    begun = time.perf_counter()
    request("POST", "/state/process", {"state": 0})
    prediction.join()
    print(f"abort to the prediction's reply: {time.perf_counter() - begun:.2f} s")
    stop(process)
