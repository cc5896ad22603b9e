"""The diff inspection: every rule catches its cheats, alone, and lets their honest twins and all shipped code pass."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from evaluators.inspection.finding import Finding
from evaluators.inspection.inspector import RULE_IDS, RULES, inspect_files
from evaluators.inspection.tree import MAX_PYTHON_BYTES
from evaluators.judge import static_check
from evaluators.target import load_target
from evaluators.target_schema import InspectionTable
from population.candidate import Operator, Proposal
from population.errors import ConfigError
from population.evaluation import Stage
from population.trees import read_folder
from tests.evaluators.inspection_cases import CASES, Case
from vibeserve.mutators import Mutation, RecipeMutator
from vibeserve.recipes import load_recipes

ROOT = Path(__file__).parents[2]
BY_NAME = [pytest.param(case, id=f"{case.rule}-{case.name}".replace(" ", "-")) for case in CASES]


def rules_of(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("case", BY_NAME)
def test_a_cheat_breaks_its_rule_alone(case: Case) -> None:
    findings = inspect_files(case.cheat)
    assert rules_of(findings) == {case.rule}, [str(finding) for finding in findings]
    for finding in findings:
        assert finding.path in case.cheat
        assert 0 <= finding.line <= case.cheat[finding.path].count(b"\n") + 1


@pytest.mark.parametrize("case", BY_NAME)
def test_its_honest_twin_passes(case: Case) -> None:
    assert [str(finding) for finding in inspect_files(case.honest)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_without_a_rule_its_cheats_pass(rule: object) -> None:
    """Mutants: each rule has cheats that nothing else catches."""
    others = [other for other in RULES if other is not rule]
    own = [case for case in CASES if case.rule == rule.id]  # type: ignore[attr-defined]
    assert own, "every rule needs a cheat"
    assert all(inspect_files(case.cheat, rules=others) == () for case in own)


def test_rules_are_told_apart_and_explained() -> None:
    assert len(RULE_IDS) == len(RULES)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id) for rule in RULES)
    assert all(rule.why.endswith(".") and "\n" not in rule.why for rule in RULES)


# --- what is shipped passes ---


def contents(folder: Path) -> dict[str, bytes]:
    return {path: entry.data for path, entry in read_folder(folder).items()}


SEEDS = ["examples/tiny-llama/seed", "tests/toy_target/seed", "vibeserve/templates/target/seed"]


@pytest.mark.parametrize("seed", SEEDS)
def test_shipped_seeds_pass(seed: str) -> None:
    assert [str(finding) for finding in inspect_files(contents(ROOT / seed))] == []


def with_recipes(tmp_path: Path, seed: str, skills: str, *names: str) -> Path:
    tree = Path(shutil.copytree(ROOT / seed, tmp_path / "tree", ignore=shutil.ignore_patterns("__pycache__")))
    mutator = RecipeMutator(load_recipes(ROOT / skills))
    for name in names:
        outcome = mutator.mutate(tree, Proposal(number=1, operator=Operator.RECIPE, recipe=name), "")
        assert isinstance(outcome, Mutation), outcome
    return tree


def applicable(skills: str, seed: str, tmp_path: Path, name: str) -> Path:
    """The seed with a recipe and what it needs."""
    shipped = load_recipes(ROOT / skills)
    recipes = {n: recipe for n, recipe in shipped.items() if n.startswith("gpu-") == name.startswith("gpu-")}
    # Of several that provide the same, the one that needs least.
    undemanding_last = sorted(recipes, key=lambda other: -len(recipes[other].needs))
    providers = {capability: other for other in undemanding_last for capability in recipes[other].provides}
    order: list[str] = []

    def add(wanted: str) -> None:
        for need in recipes[wanted].needs:
            add(providers[need])
        if wanted not in order:
            order.append(wanted)

    add(name)
    return with_recipes(tmp_path, seed, skills, *order)


@pytest.mark.parametrize("name", sorted(load_recipes(ROOT / "skills")))
def test_every_recipe_on_the_seed_passes(tmp_path: Path, name: str) -> None:
    """On the seed of the target that it was written for, by the rules of that target."""
    target = load_target(ROOT / "examples" / ("llama-3.1-8b" if name.startswith("gpu-") else "tiny-llama"))
    tree = applicable("skills", str((target.seed or Path()).relative_to(ROOT)), tmp_path, name)
    assert [str(finding) for finding in inspect_files(contents(tree), target.inspection)] == []
    assert static_check(tree, target.inspection) is None


def test_every_tree_on_the_way_to_many_recipes_passes(tmp_path: Path) -> None:
    """One recipe after another, as long as one applies."""
    recipes = load_recipes(ROOT / "skills")
    tree, applied = with_recipes(tmp_path, "examples/tiny-llama/seed", "skills", "kv-cache"), 1
    mutator = RecipeMutator(recipes)
    for name in (*recipes, *recipes):
        if isinstance(mutator.mutate(tree, Proposal(number=1, operator=Operator.RECIPE, recipe=name), ""), Mutation):
            applied += 1
            assert [str(finding) for finding in inspect_files(contents(tree))] == [], name
    assert applied >= 6


@pytest.mark.parametrize("name", sorted(load_recipes(ROOT / "tests" / "toy_target" / "skills")))
def test_every_toy_recipe_passes(tmp_path: Path, name: str) -> None:
    tree = applicable("tests/toy_target/skills", "tests/toy_target/seed", tmp_path, name)
    assert static_check(tree) is None


# --- what a target may permit ---


def test_a_target_allows_rules_with_a_reason_and_widens_limits() -> None:
    files = {"server.py": b"import ctypes\nopen('/usr/local/cuda/lib64/x')\n", "a.json": b"1" * 70_000}
    assert rules_of(inspect_files(files)) == {"native-code", "outside-path", "data-file"}
    limits = InspectionTable(
        allow={"native-code": "NCCL is reached through ctypes"}, paths=("/usr/local/cuda",), max_data_bytes=80_000
    )
    assert inspect_files(files, limits) == ()
    assert rules_of(inspect_files({"a.py": b"open('/usr/local')\nimport os\nos.system('x')\n"}, limits)) == {
        "outside-path",
        "subprocess",
    }


def test_unknown_rules_and_missing_reasons_are_defects(toy: Path) -> None:
    settings = toy / "target.toml"
    settings.write_text(settings.read_text() + '\n[inspection.allow]\nsubproces = "nvcc"\ndaemon = " "\n')
    with pytest.raises(ConfigError) as error:
        load_target(toy)
    assert "'daemon'" in str(error.value)
    settings.write_text(settings.read_text().replace('daemon = " "\n', ""))
    with pytest.raises(ConfigError, match=r"\[inspection.allow\] unknown rule 'subproces'; did you mean 'subprocess'"):
        load_target(toy)


def test_syntax_errors_cannot_be_allowed() -> None:
    limits = InspectionTable(allow=dict.fromkeys(RULE_IDS, "all"))
    assert rules_of(inspect_files({"a.py": b"x = (\n"}, limits)) == {"syntax"}


# --- the verdict ---


def test_static_check_names_every_finding_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("import os\nos.system('x')\nos.setsid()\n")
    rejected = static_check(tmp_path)
    assert rejected is not None
    assert rejected.stage is Stage.STATIC
    assert rejected.reason == "server.py:2: os.system starts a program [subprocess] (and 1 more)"
    assert "server.py:3: os.setsid lets a process outlive or ignore its keeper [daemon]" in rejected.evidence
    assert "subprocess: Another program can do what the server may not" in rejected.evidence


def test_a_link_is_one_more_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    assert static_check(tmp_path) is None
    (tmp_path / "sitecustomize.py").symlink_to("a.py")
    rejected = static_check(tmp_path)
    assert rejected is not None
    assert "[planted-module]" in rejected.reason


def test_the_verdict_cannot_drive_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("open('/etc/\\x1b[2J')\n# \x1b]0;owned\x07\n")
    rejected = static_check(tmp_path)
    assert rejected is not None
    assert (rejected.reason + rejected.evidence).replace("\n", "").isprintable()


# --- reading hostile code costs little ---


HOSTILE = {
    "names that multiply": "a0 = 'x' * 60000\n" + "".join(f"a{n} = a{n - 1} + a{n - 1}\n" for n in range(1, 2000)),
    "aliases in a circle": "a = b\nb = c\nc = a()\n" * 200,
    "formatted giants": "x = '%999999999d' % 1\ny = '{:>999999999}'.format(1)\nz = 'a'.replace('a', 'b' * 65000)\n"
    * 50,
    "loops": "x = [[chr(c) for c in 'a' * 500] for d in 'b' * 500]\n" * 100,
    "nested getattr": "import os\nx = " + "getattr(" * 30 + "os" + ", 'path')" * 30 + "\n",
    "long chain": "x = " + "+".join(["'a'"] * 5000) + "\n",
    "many meanings": "".join(f"f = m{n}.g\nimport m{n}\n" for n in range(300)) + "f(f(f(f(f(f(f(f(1))))))))\n" * 20,
    "large": "def f(x):\n    return x + 1\n" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_read_within_seconds(name: str) -> None:
    began = time.process_time()
    inspect_files({"server.py": HOSTILE[name].encode()})
    assert time.process_time() - began < 20


@pytest.mark.parametrize("data", [b"1" * 200_000, b"0123456789abcdef" * 12_000, b"'" * 200_000, b"1" + b" " * 200_000])
def test_hostile_data_is_read_within_seconds(data: bytes) -> None:
    began = time.process_time()
    inspect_files({"a.json": data, "a.txt": data})
    assert time.process_time() - began < 5


def test_too_much_code_is_refused_unread() -> None:
    findings = inspect_files({"a.py": b"#" * (MAX_PYTHON_BYTES + 1)})
    assert [finding.rule for finding in findings] == ["syntax"]
