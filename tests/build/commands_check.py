# SPDX-License-Identifier: MIT
"""What README and docs/ tell people to type exists: scripts, subcommands and their options."""
import re
import subprocess

from facts import Facts, finish

facts = Facts()
if not facts.program:
    raise SystemExit(77)


def help_of(*arguments):
    result = subprocess.run([facts.program, *arguments, "--help"], capture_output=True, text=True)
    return result.stdout if result.returncode == 0 else ""


subcommands = set(re.findall(r"^  ([a-z][a-z-]+)\s", help_of().split("Subcommands:")[-1], re.M))
options = {name: set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", help_of(name))) for name in subcommands}
complaints = [] if subcommands else ["`kvsieve --help` lists no subcommand"]
checked = 0

for page in [facts.source_dir / "README.md", facts.source_dir / "CONTRIBUTING.md", *facts.files("docs", ".md")]:
    if not page.exists():
        continue
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash|console|shell)\n(.*?)^```", text, re.M | re.S)
    commands = [line.strip().removeprefix("$ ") for b in blocks for line in b.replace("\\\n", " ").splitlines()]
    commands += [c for c in re.findall(r"`([^`\n]+)`", text) if re.match(r"(\./\w|kvsieve [a-z])", c)]
    for command in commands:
        checked += 1
        where = f"{facts.name(page)}: `{command}`"
        for script in re.findall(r"(?:^|\s)\./([\w/.-]+)", command.split(" -o ")[0]):
            if not (facts.source_dir / script).exists() and not script.startswith(("build/", "out", "my_")):
                complaints.append(f"{where}: ./{script} does not exist")
        for name, rest in re.findall(r"(?:^|[\s/])kvsieve ([a-z][a-z-]*)([^|;&]*)", command):
            if name not in subcommands:
                complaints.append(f"{where}: {name} is no subcommand of kvsieve ({', '.join(sorted(subcommands))})")
                continue
            unquoted = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", rest)
            for option in re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", unquoted):
                if option not in options[name]:
                    complaints.append(f"{where}: kvsieve {name} has no option {option}")
finish(complaints, checked)
