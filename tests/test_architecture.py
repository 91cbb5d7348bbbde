"""The direction of imports: what computes knows nothing of files, clocks and processes (see CONTRIBUTING)."""

import ast
import tomllib

LAYERS = (
    *("errors", "refusals", "keys", "types", "settings", "findings"),
    "text",  # reads and writes corpora, which tasks are made of
    "theory.algorithm",  # numbers, of which networks are made
    *(
        "tasks",
        "models",
        "theory",
        "distill.vocabulary",
        "distill.kept",
        "distill.losses",
        "distill.hinge",
        "distill.curriculum",
        "distill.teacher",
        "probes",
    ),
    *("distill", "train"),
    *("experiment", "protocol"),  # so far the core: settings and what they compute, from arguments alone
    *("configuration", "io", "train.loop", "report", "weights", "stages", "plan"),  # the shell
    *("main", "weights.__main__"),
)
"""From the lowest: a module imports from its own layer and from those before it."""

READABLE = (
    *("io.sealed.", "io.rules."),
    *(
        "report.",
        "errors.",
        "refusals.",
        "settings.",
        "findings.",
        "experiment.",
        "tasks.",
        "models.",
        "distill.",
        "probes.",
    ),
    "theory.",
    *("io.records.", "io.sealed.", "io.selection.", "io.probe_records.", "io.workdir."),
)
"""What a report may import: what is recorded, and the settings that it belongs to."""

CORE = tuple(name for name in LAYERS[: LAYERS.index("configuration")] if name not in ("text", "refusals"))
IMPURE = {"time", "tqdm", "os", "sys", "pathlib", "logging", "shutil", "signal", "orbax", "absl", "matplotlib"}


def modules(root):
    """Maps every module, by its name within pdjax, to what it imports."""
    found = {}
    for path in sorted((root / "pdjax").rglob("*.py")):
        parts = path.relative_to(root / "pdjax").with_suffix("").parts
        imports = set()
        tree = ast.parse(path.read_text())
        conditions = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        unused = [node for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING"]  # imports for types alone
        skipped = {inner for node in unused for inner in ast.walk(node)}
        for node in (node for node in ast.walk(tree) if node not in skipped):
            if isinstance(node, ast.Import):
                imports |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        found[".".join(parts).removesuffix(".__init__")] = imports
    del found["__init__"]
    return found


def layer(module):
    """Returns the number of a module's layer; the longest name that fits counts."""
    names = [".".join(module.split(".")[:n]) for n in (2, 1)]
    return LAYERS.index(next((name for name in names if name in LAYERS), names[-1]))


def inner(imports):
    """Returns what is imported of pdjax, without its name."""
    return {name.removeprefix("pdjax.") for name in imports if name.startswith("pdjax.")}


def test_imports_point_down(root):
    for name, imports in modules(root).items():
        above = {other for other in inner(imports) if layer(other) > layer(name)}
        assert not above, f"{name} imports {above}"


def test_the_core_does_not_know_the_outside_world(root):
    for name, imports in modules(root).items():
        if LAYERS[layer(name)] in CORE:
            outside = {i.split(".")[0] for i in imports} & IMPURE
            assert not outside, f"{name} imports {outside}"


def test_corpora_are_known_to_be_files_alone(root):
    for name, imports in modules(root).items():
        if LAYERS[layer(name)] == "text":
            known = ("errors.", "refusals.", "settings.", "text.")
            others = {other for other in inner(imports) if not other.startswith(known)}
            assert not others, f"{name} imports {others}"


def test_report_reads_recorded_files_only(root):
    for name, imports in modules(root).items():
        if name.split(".")[0] == "report":
            others = {other for other in inner(imports) if not other.startswith(READABLE)}
            assert not others, f"{name} imports {others}"


def test_orbax_is_known_to_one_module(root):
    users = {name for name, imports in modules(root).items() if any(i.startswith("orbax") for i in imports)}
    assert users == {"io.store"}


def test_every_package_is_installed(root):
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(root).parts) for path in (root / "pdjax").rglob("__init__.py")}
    assert set(listed) == found
