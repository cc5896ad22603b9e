"""Trees that plant a program where some git operation would run or obey it.

Each function arms a folder; `program` leaves a witness when it is executed. REFUSED may not become a commit at all,
HARMLESS are mere files to the driver.
"""

from __future__ import annotations

import os
from pathlib import Path


def plant(folder: Path, program: Path, *names: str) -> None:
    """Executable files that run the program."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\nexec {program}\n")
        (folder / name).chmod(0o755)


def armed_git_folder(folder: Path, program: Path, config: str) -> None:
    """A repository in the folder, with PROGRAM in its configuration."""
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".git" / "objects").mkdir()
    (folder / ".git" / "refs").mkdir()
    (folder / ".git" / "config").write_text(config.replace("PROGRAM", str(program)))


def fsmonitor(folder: Path, program: Path) -> None:
    armed_git_folder(folder, program, "[core]\n\tfsmonitor = PROGRAM\n")


def hooks(folder: Path, program: Path) -> None:
    armed_git_folder(folder, program, "[core]\n\thooksPath = .git/hooks\n")
    plant(folder, program, *(f".git/hooks/{h}" for h in ("pre-commit", "post-checkout", "post-index-change")))


def filter_in_repository(folder: Path, program: Path) -> None:
    config = '[filter "evil"]\n\tclean = PROGRAM\n\tsmudge = PROGRAM\n[diff "evil"]\n\ttextconv = PROGRAM\n'
    armed_git_folder(folder, program, config + '[merge "evil"]\n\tdriver = PROGRAM\n')
    (folder / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")


def attributes_in_repository(folder: Path, program: Path) -> None:
    armed_git_folder(folder, program, f"[core]\n\tattributesFile = {folder}/attributes\n[diff]\n\texternal = PROGRAM\n")
    (folder / "attributes").write_text("* diff=evil\n")
    plant(folder, program, ".git/info/attributes")


def included_config(folder: Path, program: Path) -> None:
    armed_git_folder(folder, program, f"[include]\n\tpath = {folder}/more.inc\n")
    (folder / "more.inc").write_text(f"[core]\n\tfsmonitor = {program}\n\tpager = {program}\n")


def credentials(folder: Path, program: Path) -> None:
    config = (
        "[credential]\n\thelper = !PROGRAM\n[core]\n\tsshCommand = PROGRAM\n\teditor = PROGRAM\n\taskPass = PROGRAM\n"
    )
    armed_git_folder(folder, program, config)


def alternates(folder: Path, program: Path) -> None:
    """Objects from elsewhere: of another candidate, or from a repository with a program in its configuration."""
    armed_git_folder(folder, program, "[core]\n\talternateRefsCommand = PROGRAM\n")
    (folder / ".git" / "objects" / "info").mkdir()
    (folder / ".git" / "objects" / "info" / "alternates").write_text("/\n../../../population.git/objects\n")


def replaced_objects(folder: Path, program: Path) -> None:
    armed_git_folder(folder, program, "[core]\n\tfsmonitor = PROGRAM\n")
    (folder / ".git" / "refs" / "replace").mkdir()
    (folder / ".git" / "refs" / "replace" / ("1" * 40)).write_text("2" * 40 + "\n")
    (folder / ".git" / "info").mkdir()
    (folder / ".git" / "info" / "grafts").write_text("1" * 40 + "\n")


def gitfile(folder: Path, program: Path) -> None:
    (folder / ".git").write_text("gitdir: elsewhere\n")


def gitfile_to_repository(folder: Path, program: Path) -> None:
    """A worktree whose repository lies beside it under an innocent name."""
    armed_git_folder(folder, program, "[core]\n\tfsmonitor = PROGRAM\n\tworktree = ..\n")
    (folder / ".git").rename(folder / "store")
    (folder / ".git").write_text("gitdir: store\n")


def git_link(folder: Path, program: Path) -> None:
    armed_git_folder(folder, program, "[core]\n\tfsmonitor = PROGRAM\n")
    (folder / ".git").rename(folder / "store")
    (folder / ".git").symlink_to("store")


def git_in_other_case(folder: Path, program: Path) -> None:
    (folder / ".GIT").mkdir()
    (folder / ".GIT" / "config").write_text(f"[core]\n\tfsmonitor = {program}\n")


def git_short_name(folder: Path, program: Path) -> None:
    plant(folder, program, "GIT~1/config")


def git_stream(folder: Path, program: Path) -> None:
    plant(folder, program, ".git::$INDEX_ALLOCATION/config")


def git_invisible(folder: Path, program: Path) -> None:
    plant(folder, program, ".g\u200cit/config")


def nested(folder: Path, program: Path) -> None:
    (folder / "inner").mkdir()
    fsmonitor(folder / "inner", program)


def submodule(folder: Path, program: Path) -> None:
    (folder / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::{program}\n\tupdate = !{program}\n')


def submodule_link(folder: Path, program: Path) -> None:
    (folder / "modules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::{program}\n\tupdate = !{program}\n')
    (folder / ".gitmodules").symlink_to("modules")


def link_outside(folder: Path, program: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")


def link_to_program(folder: Path, program: Path) -> None:
    (folder / "git").symlink_to(program)


def link_up(folder: Path, program: Path) -> None:
    (folder / "up").symlink_to("../secret")


def link_through_a_link(folder: Path, program: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "root").symlink_to("..")
    (folder / "a" / "out").symlink_to("root/../../secret")


def link_to_git(folder: Path, program: Path) -> None:
    (folder / "x").symlink_to(".git/hooks")


def control_characters(folder: Path, program: Path) -> None:
    (folder / "a\x1b[2Jb\n").write_text("x")


def bidirectional_name(folder: Path, program: Path) -> None:
    (folder / "a\u202eyp.sh").write_text("x")


def backslashes(folder: Path, program: Path) -> None:
    plant(folder, program, "a\\..\\.git\\config")


def dots_at_the_end(folder: Path, program: Path) -> None:
    plant(folder, program, ".git./config", "server.py.")


def shell_characters(folder: Path, program: Path) -> None:
    (folder / f"--exec=$({program.name})").write_text("x")


def not_utf8(folder: Path, program: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe")).write_text("x")


def option_name(folder: Path, program: Path) -> None:
    (folder / f"--upload-pack={program.name}").write_text("x")


def pipe(folder: Path, program: Path) -> None:
    os.mkfifo(folder / "pipe")


def hard_link(folder: Path, program: Path) -> None:
    os.link(program, folder / "mine")


def sparse_giant(folder: Path, program: Path) -> None:
    with (folder / "giant").open("wb") as file:
        file.truncate(1 << 40)


def case_twins(folder: Path, program: Path) -> None:
    (folder / "Engine.py").write_text("1")
    (folder / "engine.py").write_text("2")


def deep(folder: Path, program: Path) -> None:
    (folder / "/".join("d" * 40)).mkdir(parents=True)


def filters(folder: Path, program: Path) -> None:
    (folder / ".gitattributes").write_text(
        "* filter=evil diff=evil merge=evil working-tree-encoding=UTF-16 ident export-subst\nserver.py export-ignore\n"
    )
    (folder / ".gitconfig").write_text(
        f'[filter "evil"]\n\tclean = {program}\n\tsmudge = {program}\n\tprocess = {program}\n[diff "evil"]\n'
        f'\ttextconv = {program}\n\tcommand = {program}\n[merge "evil"]\n\tdriver = {program}\n'
    )


def lfs(folder: Path, program: Path) -> None:
    (folder / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (folder / ".lfsconfig").write_text("[lfs]\n\turl = http://127.0.0.1:1/\n")
    (folder / "model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def python_startup(folder: Path, program: Path) -> None:
    for name in ("sitecustomize.py", "usercustomize.py", "conftest.py"):
        (folder / name).write_text(f"import os; os.system({str(program)!r})\n")


def commands_in_the_folder(folder: Path, program: Path) -> None:
    """Whoever looks for commands in the working directory finds these first."""
    plant(folder, program, "git", "sh", "git-merge-tree", "git-unpack-objects", "less")


def bare_repository(folder: Path, program: Path) -> None:
    """A tree that looks like a bare repository itself."""
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "config").write_text(f"[core]\n\tbare = true\n\tfsmonitor = {program}\n")
    (folder / "objects" / "info").mkdir(parents=True)
    (folder / "objects" / "info" / "alternates").write_text("/\n")
    (folder / "refs").mkdir()
    (folder / "refs" / "x").write_text("x")
    plant(folder, program, "hooks/post-checkout", "hooks/reference-transaction")


REPOSITORIES = [
    *(fsmonitor, hooks, filter_in_repository, attributes_in_repository, included_config, credentials, alternates),
    *(replaced_objects, gitfile, gitfile_to_repository, git_link, nested, submodule, submodule_link),
    *(git_in_other_case, git_short_name, git_stream, git_invisible),
]
LINKS = [link_outside, link_to_program, link_up, link_through_a_link, link_to_git]
NAMES = [
    *(control_characters, bidirectional_name, backslashes, dots_at_the_end, shell_characters, not_utf8, option_name),
    *(case_twins, deep),
]
KINDS = [pipe, hard_link, sparse_giant]
REFUSED = [*REPOSITORIES, *LINKS, *NAMES, *KINDS]
HARMLESS = [filters, lfs, python_startup, commands_in_the_folder, bare_repository]
ARMED = [*REFUSED, *HARMLESS]
