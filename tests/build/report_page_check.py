# SPDX-License-Identifier: MIT
"""A report in a browser: no message in its console, nothing wider than the window, on a desktop and on a phone. Left
out where there is no Chromium."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from facts import Facts, finish

facts = Facts()
chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if not chromium or not facts.program:
    print("no Chromium, or no program")
    sys.exit(77)

# Asks the page itself for its width; the answer comes back in the dumped document.
PROBE = ("<script>addEventListener('load', () => {{ document.title = 'width ' + "
         "document.documentElement.scrollWidth + ' of {width}'; }});{more}</script>")


def load(page, width, more=""):
    probed = page.with_name(f"page_{width}.html")
    probed.write_text(page.read_text().replace("</body>", PROBE.format(width=width, more=more) + "</body>"))
    result = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--enable-logging=stderr", f"--user-data-dir={page.parent / 'browser'}", f"--window-size={width},2000",
         "--virtual-time-budget=2000", "--dump-dom", str(probed)], capture_output=True, text=True, timeout=120)
    messages = re.findall(r"CONSOLE[^\n]*", result.stderr)
    found = re.search(r"<title>width (\d+) of", result.stdout)
    return messages, int(found[1]) if found else None


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    image = facts.source_dir / "models/examples/form_1.png"
    (folder / "data.jsonl").write_text(
        f'{{"id": "a", "image": "{image}", "prompt": "What is the score?", "answer": "7"}}\n')
    environment = {**os.environ, "KVSIEVE_MODELS": str(facts.source_dir / "models"), "OMP_WAIT_POLICY": "passive"}
    results, page = folder / "results.jsonl", folder / "page.html"
    for command in (["eval", "--data", folder / "data.jsonl", "--methods", "full,prefixkv,aircache", "--keep", "0.3,0.1",
                     "--kv-type", "f16,q8_0", "-n", "8", "-o", results],
                    ["report", results, "-o", page]):
        subprocess.run([facts.program, *map(str, command)], check=True, env=environment, stderr=subprocess.DEVNULL)

    complaints, checked = [], 0
    if not load(page, 800, "console.error('seen?');")[0]:
        complaints.append("an error that the page was given did not come back: this check would see none")
    for width in (1280, 500):  # Chromium's windows are at least 500 wide
        messages, page_width = load(page, width)
        checked += 1
        complaints += [f"{width} wide: {message}" for message in messages]
        if page_width is None:
            complaints.append(f"{width} wide: the page did not load")
        elif page_width > width:
            complaints.append(f"{width} wide: the page takes {page_width}")
finish(complaints, checked)
