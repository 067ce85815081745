# SPDX-License-Identifier: MIT
"""What the checks of the project's shape share: facts of the build, a compiler call, a list of complaints."""
import json
import subprocess
import sys
from pathlib import Path


class Facts:
    """The object that CMake wrote (tests/build/CMakeLists.txt)."""

    def __init__(self):
        for key, value in json.loads(Path(sys.argv[1]).read_text()).items():
            setattr(self, key, value)
        self.source_dir = Path(self.source_dir)
        self.binary_dir = Path(self.binary_dir)

    def files(self, folder, *suffixes):
        return sorted(p for p in (self.source_dir / folder).rglob("*") if p.suffix in suffixes)

    def name(self, path):
        return str(path.relative_to(self.source_dir))

    def compile(self, path, include_dirs, *flags):
        """Compiles without output; the compiler's messages, or None if it accepts the file."""
        command = [self.cxx, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *flags]
        command += [f"-I{d}" for d in include_dirs]
        result = subprocess.run([*command, "-x", "c++", str(path)], capture_output=True, text=True)
        return None if result.returncode == 0 else result.stderr


def finish(complaints, checked):
    """Ends the check. Nothing checked is a failure too."""
    for complaint in complaints:
        print(complaint)
    print(f"{checked} checked, {len(complaints)} complaints")
    sys.exit(1 if complaints or checked == 0 else 0)
