# SPDX-License-Identifier: MIT
"""An installed tree serves alone: the examples find it with find_package(kvsieve), build and run, the installed
program finds its own model, and nothing in the tree names the build directory."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from facts import Facts, finish

facts = Facts()
complaints = []
checked = 0


def run(*command, **kwargs):
    global checked
    checked += 1
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if result.returncode != 0:
        print(f"{' '.join(map(str, command))} ended with {result.returncode}:\n{result.stdout}")
        sys.exit(1)
    return result.stdout


with tempfile.TemporaryDirectory() as folder:
    prefix = Path(folder) / "prefix"
    build = Path(folder) / "build"
    run(facts.cmake, "--install", facts.binary_dir, "--prefix", prefix)

    for path in ("bin/kvsieve", "include/kvsieve/policy.h", "share/kvsieve/models"):
        if not (prefix / path).exists():
            complaints.append(f"{path} is not installed")
    headers = sorted(p.name for p in (prefix / "include").rglob("*.h"))
    if headers != sorted(p.name for p in facts.files("include", ".h")):
        complaints.append(f"include/ holds {headers}, expected our public headers only")
    for package_file in (prefix / "lib").rglob("*.cmake"):
        for place in (facts.source_dir, facts.binary_dir):
            if str(place) in package_file.read_text():
                complaints.append(f"{package_file.name} names {place}")

    # Examples from a copy outside of the source tree, with nothing but the prefix to find kvsieve in.
    examples = Path(folder) / "examples"
    shutil.copytree(facts.source_dir / "examples", examples)
    run(facts.cmake, "-S", examples, "-B", build, "-G", facts.generator, f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DCMAKE_CXX_COMPILER={facts.cxx}", f"-DCMAKE_CXX_COMPILER_LAUNCHER={facts.launcher}",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    run(facts.cmake, "--build", build, "--parallel", "2")

    lines = run(build / "plan_from_observations").splitlines()
    kept = [int(line.split()[3]) for line in lines]
    if len(kept) != 2 or not kept[0] < kept[1] or not abs(sum(kept) - 80) <= 5:
        complaints.append(f"plan_from_observations: expected about 80 tokens in two layers, fewer in the first, got {lines}")
    lines = run(build / "write_your_own_method").splitlines()
    if lines != ["0 1 2 3 34 35 36 37 38 39 "] * 2:
        complaints.append(f"write_your_own_method: expected 4 sinks and 6 recent tokens twice, got {lines}")

    image = facts.source_dir / "models/examples/form_1.png"
    environment = {**os.environ, "KVSIEVE_MODELS": str(prefix / "share/kvsieve/models")}
    output = run(build / "ask_about_an_image", image, "What is the name?", env=environment)
    if "visual and" not in output:
        complaints.append(f"ask_about_an_image: expected an answer and its statistics, got {output}")

    pairs = [word for question in ("What is the name?", "What is the title?", "What is the total?")
             for word in (image, question)]
    output = run(build / "answer_many_questions", "8", *pairs, env=environment)
    if output.count("KiB of cache") != 3 or "together" not in output:
        complaints.append(f"answer_many_questions: expected three answers and their caches, got {output}")

    # The installed program prefers the model beside it: with that one damaged it has to refuse, naming it.
    environment.pop("KVSIEVE_MODELS")
    program = prefix / "bin/kvsieve"
    run(program, "run", "-p", "Hello", "--n-predict", "1", env=environment)
    for model in (prefix / "share/kvsieve/models").glob("*.gguf"):
        model.write_bytes(b"damaged")
    result = subprocess.run([program, "run", "-p", "Hello", "--n-predict", "1"], capture_output=True, text=True,
                            env=environment)
    checked += 1
    if result.returncode != 2 or "share/kvsieve/models" not in result.stderr:
        complaints.append("the installed program does not use share/kvsieve/models beside it: with a damaged model there "
                          f"it ended with {result.returncode}: {result.stderr}")
finish(complaints, checked)
