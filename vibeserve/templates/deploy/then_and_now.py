"""Prints what bench.sh has measured here beside what the search measured: then_and_now.py bench/vibeserve.json"""

import json
import math
import sys
from pathlib import Path

evidence = json.loads((Path(__file__).parent / "evidence" / "measurements.json").read_text(encoding="utf-8"))
now = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["samples"]
row = "{:<32} {:>10} {:>23} {:>10} {:>8}"
print(row.format("metric@load", "then", "95 % interval", "here", "ratio"))
for key, then in evidence["metrics"].items():
    values = [value for value in now.get(key, ()) if value]
    if key.partition("@")[0] in evidence["objectives"] and values and all(then.values()):
        here = math.exp(sum(map(math.log, values)) / len(values))
        interval = f"{then['low']:,.4g} – {then['high']:,.4g}"
        print(row.format(key, f"{then['value']:,.4g}", interval, f"{here:,.4g}", f"{here / then['value']:.2f}×"))
