#!/usr/bin/env bash
# Packs what VibeServe needs on a GPU host without network that has PyTorch, aiohttp, rich, typer, NumPy and SciPy (13 MB of
# wheels for CPython 3.12). No Ray: such a host runs `executor = "inline"`.
#   usage: pack_host.sh OUT
# There, into the interpreter's own site-packages, because the target's scripts run as `python -I`:
#   python3 -m pip install --no-index --no-deps --no-compile OUT/*.whl
set -euo pipefail
out=${1:?usage: pack_host.sh OUT}
platforms=()
for n in 2_35 2_34 2_31 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${n}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
# Searching, configuration, profiling; then what these import and the host may lack.
packages=('pymoo>=0.6.2,<0.7' 'moocore>=0.3.2' 'pydantic>=2.12' 'tomli-w>=1.2' 'py-spy>=0.4' 'pyyaml>=6')
packages+=(cffi pycparser platformdirs autograd cma 'deprecated<2' annotated-types)
packages+=(typing-inspection typing-extensions alive-progress==3.3.0 about-time==4.2.1 graphemeu==0.7.2)
get() { python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" -d "$out" "$@"; }
get "${packages[@]}"
# pydantic names the one version of its core that it works with.
core=$(unzip -p "$out"/pydantic-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: pydantic-core==\([0-9.]*\).*/\1/p')
get "pydantic-core==$core"
du -sh "$out"
