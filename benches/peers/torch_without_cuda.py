"""Makes PyTorch's CUDA wheel importable on a machine that has none of NVIDIA's 2 GB of libraries.

    python torch_without_cuda.py SITE-PACKAGES

PyPI's only Linux wheel of torch 2.11.0 is the CUDA one. Its libraries name NVIDIA's, so `import torch` fails without
them although nothing on the CPU path calls them. This writes an empty stand-in for each library that the loader does
not find, with the symbols it misses. For CPU measurements only: anything on a GPU fails. Needs gcc, ldd and objdump.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile


def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def missing_from(library):
    """The sonames the loader does not find for `library`, and the (symbol, version) pairs it cannot resolve."""
    report = output("ldd", "-r", str(library))
    sonames = re.findall(r"^\s*(\S+) => not found", report, re.MULTILINE)
    symbols = re.findall(r"undefined symbol: (\w+)(?:, version (\w[\w.]*))?", report)
    return sonames, [(symbol, version) for symbol, version in symbols if not re.match("_?Py", symbol)]


def homes_of_versions(library):
    """Which soname each symbol version is expected in, from the library's version references."""
    homes, soname = {}, None
    for line in output("objdump", "-p", str(library)).splitlines():
        if found := re.match(r"\s+required from (\S+):", line):
            soname = found[1]
        elif soname and (found := re.match(r"\s+0x\w+ 0x\w+ \d+ (\S+)", line)):
            homes[found[1]] = soname
    return homes


def write_stand_in(path, symbols):
    """A shared library of empty functions; `symbols` is a set of (name, version), version "" for none."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "stand_in.c")
        source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name, _ in sorted(symbols)))
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
        by_version = collections.defaultdict(list)
        for name, version in sorted(symbols):
            if version:
                by_version[version].append(name)
        if by_version:
            script = pathlib.Path(folder, "versions")
            script.write_text(
                "".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in by_version.items())
            )
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, check=True)


def main():
    site = pathlib.Path(sys.argv[1])
    folder = site / "nvidia/cu13/lib"  # where the torch libraries' RPATH looks
    sonames, symbols, homes = set(), set(), {}
    for library in sorted((site / "torch/lib").glob("libtorch*.so")):
        its_sonames, its_symbols = missing_from(library)
        sonames.update(its_sonames)
        symbols.update(its_symbols)
        homes.update(homes_of_versions(library))
    if not sonames:
        return
    wanted = {soname: set() for soname in sonames}
    unversioned_home = min(sonames)  # the loader takes a symbol without version from any library
    for name, version in symbols:
        home = homes.get(version, unversioned_home)
        if home in wanted:
            wanted[home].add((name, version))
    folder.mkdir(parents=True, exist_ok=True)
    for soname in sorted(wanted):
        write_stand_in(folder / soname, wanted[soname])
    print(f"wrote {len(wanted)} stand-ins for CUDA libraries below {folder}")


if __name__ == "__main__":
    main()
