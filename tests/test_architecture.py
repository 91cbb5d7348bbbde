"""The direction of dependencies: the core computes and never imports the shell (see CONTRIBUTING)."""

import ast
import tomllib

CORE = {
    "blocked", "chunk", "config", "conversion", "curriculum", "errors", "evidence", "flops", "losses", "models",
    "optimizer", "precision", "probes", "saturation", "selection", "sharding", "step", "sweep", "tasks", "types",
}  # fmt: skip
SHELL = {
    "experiment", "interrupt", "main", "plan", "probe_records", "processes", "progress", "records", "report",
    "residency", "stages", "store", "train", "usage", "writer",
}  # fmt: skip
IMPURE = {"time", "tqdm", "os", "sys", "pathlib", "logging", "shutil", "signal", "orbax", "absl", "matplotlib"}


def modules(root):
    """Maps every module to its top-level part and what it imports."""
    tops_and_imports = {}
    for path in sorted((root / "pdjax").rglob("*.py")):
        parts = path.relative_to(root / "pdjax").with_suffix("").parts
        imports = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imports |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        tops_and_imports[".".join(parts)] = (parts[0], imports)
    return tops_and_imports


def test_every_module_has_its_place(root):
    tops = {top for top, _ in modules(root).values()} - {"__init__"}
    assert tops == CORE | SHELL


def test_core_imports_neither_the_shell_nor_the_outside_world(root):
    for name, (top, imports) in modules(root).items():
        if top in CORE:
            parts = {i.split(".")[1] for i in imports if i.startswith("pdjax.")}
            assert not parts & SHELL, f"{name} imports {parts & SHELL}"
            outside = {i.split(".")[0] for i in imports} & IMPURE
            assert not outside, f"{name} imports {outside}"


def test_report_reads_recorded_files_only(root):
    for name, (top, imports) in modules(root).items():
        if top == "report":
            parts = {i.split(".")[1] for i in imports if i.startswith("pdjax.")}
            assert parts <= {"report", "records", "probe_records", "config", "errors"}, name


def test_orbax_is_known_to_one_module(root):
    users = {name for name, (_, imports) in modules(root).items() if any(i.startswith("orbax") for i in imports)}
    assert users == {"store"}


def test_every_package_is_installed(root):
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {".".join(path.parent.relative_to(root).parts) for path in (root / "pdjax").rglob("__init__.py")}
    assert set(listed) == packages
