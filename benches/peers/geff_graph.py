#!/usr/bin/env python3
"""GEFF and TrackMate files as the `geff` package sees them. Answers each line with one line of JSON.

    version             the major version of zarr
    read PATH           validates a GEFF; its metadata, nodes and edges
    write2 PATH         writes a GEFF in Zarr 2 (write3: Zarr 3) with positions in pixels and radii
    trackmate PATH OUT  converts a TrackMate file to a GEFF
"""
import json
import sys
import warnings

import geff
import numpy as np
import zarr
from geff.convert import from_trackmate_xml_to_geff
from geff.core_io import read_to_memory, write_arrays
from geff_spec import Axis, GeffMetadata

warnings.simplefilter("ignore")


def read(path):
    geff.validate_structure(path)
    graph = read_to_memory(path)
    metadata = graph["metadata"]
    props = {name: prop["values"].tolist() for name, prop in graph["node_props"].items()}
    edge_props = {
        name: [None if missing else value for value, missing in zip(
            prop["values"].tolist(), np.zeros(len(prop["values"]), bool) if prop["missing"] is None else prop["missing"])]
        for name, prop in graph["edge_props"].items()
    }
    return {
        "version": metadata.geff_version, "directed": metadata.directed, "axes": [axis.name for axis in metadata.axes or []],
        "units": [axis.unit for axis in metadata.axes or []], "ellipsoid": metadata.ellipsoid, "sphere": metadata.sphere,
        "nodes": graph["node_ids"].tolist(), "props": props, "edges": graph["edge_ids"].tolist(), "edge_props": edge_props,
    }


def write(path, zarr_format):
    prop = lambda values: {"values": np.array(values), "missing": None}
    metadata = GeffMetadata(
        directed=True, sphere="r", node_props_metadata={}, edge_props_metadata={},
        axes=[Axis(name="t", type="time", unit="second"), Axis(name="z", type="space", unit="pixel"),
              Axis(name="y", type="space", unit="nanometer"), Axis(name="x", type="space", unit="micrometer")])
    write_arrays(path, np.array([7, 3, 90], np.uint16), {
        "t": prop([600.0, 0.0, 900.0]), "z": prop([1, 2, 3]), "y": prop([1000.0, 2000.0, 3000.0]),
        "x": prop(np.array([4, 5, 6], np.float32)), "r": prop([2.0, 2.0, 2.5]), "score": prop([0.5, 0.25, 1.0]),
    }, np.array([[3, 7], [7, 90]], np.uint16), {}, metadata, zarr_format=zarr_format)
    return {}


for line in sys.stdin:
    command, *paths = line.split()
    if command == "version":
        answer = int(zarr.__version__.split(".")[0])
    elif command == "read":
        answer = read(*paths)
    elif command == "trackmate":
        from_trackmate_xml_to_geff(*paths)
        answer = read(paths[1])
    else:
        answer = write(paths[0], int(command[-1]))
    print(json.dumps(answer), flush=True)
