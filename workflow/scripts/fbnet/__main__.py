"""`fbnet COMMAND ...`: the scripts of the workflow as commands, also where only this package is installed."""

import ast
import re
import runpy
import sys
from pathlib import Path

from fbnet.terminal import replace_unknown_characters

HOME = Path(__file__).parent
SCRIPTS = HOME / "commands" if (HOME / "commands").is_dir() else HOME.parent  # installed, or in a checkout


def main() -> None:
    """Run the script that the first argument names; without one, or for --help, list them."""
    replace_unknown_characters()
    scripts = {path.stem.replace("_", "-"): path for path in sorted(SCRIPTS.glob("*.py")) if path.stem != "__init__"}
    command = sys.argv[1].replace("_", "-") if len(sys.argv) > 1 else "--help"
    if command in scripts:
        del sys.argv[1]
        try:
            runpy.run_path(str(scripts[command]), run_name="__main__")
        except ModuleNotFoundError as error:
            sys.exit(f"fbnet {command} needs {error.name}, which is not here: install fbnet-workflow with its extra [workflow]")
        return
    width = max(map(len, scripts))
    lines = [f"  {name:{width}}  {_purpose(path)}" for name, path in scripts.items()]
    usage = "\n".join(["usage: fbnet COMMAND ...; fbnet COMMAND --help says how", "", *lines])
    if command in ("-h", "--help"):
        print(usage)
    else:
        sys.exit(f"fbnet: there is no command {sys.argv[1]!r}\n{usage}")


def _purpose(script: Path) -> str:
    """The first sentence of what a script says of itself."""
    return re.split(r"[.;] |[.]?\n|[.]$", ast.get_docstring(ast.parse(script.read_bytes())))[0]


if __name__ == "__main__":
    main()
