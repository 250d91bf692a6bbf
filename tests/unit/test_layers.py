"""Rules for imports between modules, and for parameters and calls."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tracker"

#: Modules that import only each other.
VOCABULARY = {
    *(
        "__init__",
        "position",
        "extra",
        "clock",
        "command",
        "keys",
        "imei",
        "config",
        "kept",
        "limits",
        "settings",
        "durations",
    ),
    *("errors", "interfaces", "outcomes", "reactor", "untrusted", "wording"),
}

#: Packages in the order of their layers: each imports only those before it.
LAYERS = (
    *("observe", "runtime", "net", "redis", "log", "commands", "vendors", "ingestion"),
    *("storage", "processing", "janitor", "control", "bridge", "console", "simulator"),
    *("admin", "tap"),
)

#: Pairs of packages that must not import each other.
INDEPENDENT = ({"ingestion", "processing"}, {"vendors", "log"}, {"ingestion", "storage"})

#: The only module of a vendor that is not pure.
PLUGIN = "vendor.py"
#: Shared modules of vendors that dialects and tools may import.
DIALECT_IMPORTS = (
    *("budget.py", "dialect.py", "documents.py", "holds.py", "inspection.py", "rejections.py"),
    "simulation.py",
)

#: Modules without Twisted: codecs, dialects and their dependencies.
PURE = [
    PACKAGE / "position.py",
    PACKAGE / "extra.py",
    PACKAGE / "clock.py",
    PACKAGE / "command.py",
    PACKAGE / "keys.py",
    PACKAGE / "imei.py",
    PACKAGE / "kept.py",
    PACKAGE / "limits.py",
    PACKAGE / "settings.py",
    PACKAGE / "durations.py",
    PACKAGE / "outcomes.py",
    PACKAGE / "net" / "proxyheader.py",
    PACKAGE / "untrusted.py",
    PACKAGE / "wording.py",
    *(PACKAGE / "vendors" / name for name in DIALECT_IMPORTS),
    *sorted(path for path in (PACKAGE / "vendors").glob("*/*.py") if path.name != PLUGIN),
]

MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield the absolute names that a module imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(dotted: str) -> str:
    """Return ``log`` for ``tracker.log.redis.lag``, ``__init__`` for ``tracker.__version__``."""
    name = dotted.split(".")[1] if "." in dotted else "__init__"
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__"


def dotted(path: Path) -> str:
    """Return ``tracker.log.redis.lag`` for ``tracker/log/redis/lag.py``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_of(name: str, modules: Container[str]) -> str | None:
    """Return the module that an import names or takes a name from; None if it is foreign."""
    for candidate in (name, name.rpartition(".")[0]):
        if candidate in modules:
            return candidate
    return None


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_modules_below_it(path: Path) -> None:
    here = package_of(path)
    allowed = set(VOCABULARY)
    if here not in VOCABULARY:
        allowed |= set(LAYERS[: LAYERS.index(here) + 1])
        allowed -= {one for two in INDEPENDENT if here in two for one in two - {here}}
    imports = {top_level(name) for name in imported(path) if name.split(".")[0] == "tracker"}
    assert imports <= allowed


def test_no_import_cycle_exists() -> None:
    modules = {dotted(path): path for path in MODULES}
    left = {
        name: {found for one in imported(path) if (found := module_of(one, modules)) is not None}
        for name, path in modules.items()
    }
    # Repeatedly remove modules that import no remaining module; only cycles remain.
    while ends := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in ends}
    assert not left


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_codecs_do_not_import_twisted(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] in ("twisted", "zope")]


def test_vendors_do_not_import_each_other() -> None:
    vendors = {path.name for path in (PACKAGE / "vendors").iterdir() if path.is_dir()}
    vendors.discard("__pycache__")
    for vendor in vendors:
        for path in (PACKAGE / "vendors" / vendor).rglob("*.py"):
            for name in imported(path):
                if name.startswith("tracker.vendors."):
                    assert name.split(".")[2] not in vendors - {vendor}, path


def test_nothing_outside_a_vendor_imports_it() -> None:
    vendors = {path.parent.name for path in (PACKAGE / "vendors").glob("*/__init__.py")}
    for path in MODULES:
        if path.parent.parent != PACKAGE / "vendors":
            for name in imported(path):
                parts = name.split(".")
                assert parts[:2] != ["tracker", "vendors"] or parts[2] not in vendors, path


@pytest.mark.parametrize("kind", ["unit", "integration"])
def test_test_packages_mirror_the_packages_of_tracker(kind: str) -> None:
    tests = ROOT / "tests" / kind
    for path in tests.rglob("__init__.py"):
        folder = path.parent.relative_to(tests)
        assert (PACKAGE / folder / "__init__.py").exists(), folder


def test_unit_tests_outside_a_package_test_top_level_modules() -> None:
    rules = {"containers", "contributing", "english", "layers", "logformats", "messages", "release"}
    for path in (ROOT / "tests" / "unit").glob("test_*.py"):
        assert path.stem.split("_")[1] in VOCABULARY | rules, path


def test_every_package_has_an_init_module() -> None:
    for folder in PACKAGE.rglob("*"):
        if folder.is_dir() and list(folder.glob("*.py")):
            assert (folder / "__init__.py").exists(), folder


def test_plugin_folder_is_not_a_package() -> None:
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "__init__.py").exists()


def test_only_one_module_contains_names_in_redis() -> None:
    spelled = ('"telemetry:', '"instance:heartbeat', '"commands:', '"connections:registry')
    for path in MODULES:
        if path.name != "keys.py":
            text = path.read_text(encoding="utf-8")
            assert not [name for name in spelled if name in text], path


def functions() -> Iterator[tuple[str, ast.arguments]]:
    """Yield the location of each function of the package, and its parameters."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.args


def test_functions_have_at_most_four_positional_parameters() -> None:
    for where, arguments in functions():
        names = {one.arg for one in (*arguments.posonlyargs, *arguments.args)}
        assert len(names - {"self", "cls"}) <= 4, where


def test_reactors_and_clocks_are_typed() -> None:
    for where, arguments in functions():
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if one.arg in ("reactor", "clock") and one.annotation is not None:
                assert ast.unparse(one.annotation) != "Any", where


def test_no_call_unpacks_a_literal_tuple() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                unpacked = [one.value for one in node.args if isinstance(one, ast.Starred)]
                assert not any(isinstance(one, ast.Tuple) for one in unpacked), (path, node.lineno)
