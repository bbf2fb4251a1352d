"""A line a seed: what its run of the campaign sums up to, on any machine. Usage: seed_sums.py FIRST:BEHIND"""

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "world"))
import campaign

if __name__ == "__main__":
    print(f"word {struct.calcsize('P')}", flush=True)
    first, behind = (int(part) for part in sys.argv[1].split(":"))
    for seed in range(first, behind):
        found = campaign.run(seed)
        print(f"seed {seed} {found['sha256']} {found['cycles']}", flush=True)
