"""Decides nothing: OpenEvolve's own program database behind a pipe, run by the Python that has `openevolve` installed.

One JSON object per line in, one out; ids are candidates', also of a migrant, which is a copy. It does what
`openevolve.process_parallel` does around its workers: a parent is sampled from the island whose turn it is when a child
is submitted; when the child ends, it is added to that island, the island's generation grows, and programs migrate when
they are due.

    {"reset": seed, "features": [..]}          → {}
    {"sample": island}                          → {"parent": id, "inspirations": [ids]}
    {"add": id, "parent": id | null, "island": i | null, "metrics": {"combined_score": s, "f1": …}}  → {}
"""

import json
import logging
import sys

from openevolve.config import DatabaseConfig
from openevolve.database import Program, ProgramDatabase


def _add(database: ProgramDatabase, order: dict, iteration: int) -> None:
    program = Program(
        id=order["add"], code=order["add"], parent_id=order["parent"], generation=iteration, metrics=order["metrics"]
    )
    database.add(program, iteration=iteration, target_island=order["island"])
    if order["parent"] is not None:
        database.increment_island_generation(island_idx=program.metadata.get("island", database.current_island))
        if database.should_migrate():
            database.migrate_programs()


def main() -> None:
    logging.disable(logging.CRITICAL)
    # OpenEvolve may print; what it prints must not get between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    database, iteration = ProgramDatabase(DatabaseConfig()), 0
    for line in sys.stdin:
        order, answer = json.loads(line), {}
        if "reset" in order:
            config = DatabaseConfig(random_seed=order["reset"], feature_dimensions=order["features"], log_prompts=False)
            database, iteration = ProgramDatabase(config), 0
        elif "sample" in order:
            parent, inspirations = database.sample_from_island(order["sample"] % database.config.num_islands)
            answer = {"parent": parent.code, "inspirations": [program.code for program in inspirations]}
        else:
            _add(database, order, iteration)
            iteration += 1
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
