"""The command line: ``rl3d COMMAND ...``; without one it lists them."""

from __future__ import annotations

import os
import sys
from importlib import import_module

USAGE = """rl3d makes 3D objects from text, and teaches them with rewards.

  rl3d generate "a red mug"          make an object      (rl3d generate --help: every setting)
  rl3d generate prompts.txt          one for each line
  rl3d finetune draft                teach the prior    (rl3d finetune --help: the lessons)
  rl3d resume runs/a-red-mug         continue a run that was stopped
  rl3d evaluate                      generate and score held-out prompts
  rl3d view runs                     look at runs in the browser, finished or still running
  rl3d export runs/a-red-mug         meshes, splats, films, a page to share (rl3d export --help)
  rl3d score runs/a-red-mug          score any asset with any rewards
  rl3d reward train pairs.jsonl      make a reward of recorded preferences
  rl3d world build FOLDER            render your own captioned meshes, to train on  (also: rl3d world fetch, train)
  rl3d weights list                  the published models it can use; get and check them
  rl3d recipes                       list the recipes
  rl3d doctor                        say what works on this machine
"""

COMMANDS = (
    "generate",
    "finetune",
    "resume",
    "view",
    "export",
    "evaluate",
    "score",
    "reward",
    "world",
    "weights",
    "recipes",
    "doctor",
)
"""Each a module of ``rl3d.commands``, imported when it is asked for."""

ELSEWHERE = {"view": "rl3d.viewer.command"}
"""But these: the viewer stands above all commands."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command. A user's mistake ends in one line on stderr and exit code 2, Ctrl-C in 130, never in a traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    if words[0] not in COMMANDS:
        print(f"rl3d: there is no command {words[0]!r}\n\n{USAGE}", end="", file=sys.stderr)
        raise SystemExit(2)
    # Threads of torch that wait for each other give the core up soon: where another program has one of two cores, a run took
    # 2.7 times as long with the usual spinning, and 1.5 times with this; alone it costs nothing. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        import_module(ELSEWHERE.get(words[0], f"rl3d.commands.{words[0]}")).main(words[1:])
    except KeyboardInterrupt:
        print("\nrl3d: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except ValueError as error:
        print(f"rl3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"rl3d: {error.strerror or error}{where}: what was saved before is whole", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
