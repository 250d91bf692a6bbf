"""The rules of the house: who may import whom, and what codecs keep away from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tracker"

#: Modules that everything may stand on, and what they may stand on themselves.
VOCABULARY = {
    *("__init__", "position", "command", "keys", "imei", "limits", "interfaces"),
    *("endpoints", "certificates", "tls", "lifecycle", "notify", "settings", "outcomes"),
    "untrusted",
}

#: Part of the house → other parts that it may import, besides the vocabulary.
MAY_IMPORT = {
    **{name: set[str]() for name in VOCABULARY},
    "net": set[str](),
    "streams": set[str](),
    "observe": {"net", "streams"},
    "config": {"streams"},
    "vendors": {"streams"},
    "ingestion": {"net", "streams", "observe"},
    "processing": {"streams", "observe"},
    "janitor": {"streams", "observe"},
    "bridge": {"net", "streams", "observe", "control"},
    "console": {"net", "streams", "observe", "control", "processing"},
    "simulator": {"streams", "vendors"},
    "control": {"streams", "observe", "vendors", "simulator", "config", "processing"}
    | {"bridge", "console"},
    "tap": {"net", "streams", "observe", "config", "control"}
    | {"ingestion", "processing", "janitor", "bridge", "console"},
}

#: Ends of the names of a vendor's modules that carry bytes, and do not decode them.
CARRIERS = ("protocol.py", "factory.py", "vendor.py", "turns.py", "throttle.py", "writer.py")

#: Modules that decode, and so are pure: bytes in, values out.
PURE = [
    PACKAGE / "position.py",
    PACKAGE / "command.py",
    PACKAGE / "keys.py",
    PACKAGE / "imei.py",
    PACKAGE / "limits.py",
    PACKAGE / "settings.py",
    PACKAGE / "outcomes.py",
    PACKAGE / "net" / "proxyheader.py",
    PACKAGE / "untrusted.py",
    *sorted(
        path for path in (PACKAGE / "vendors").rglob("*.py") if not path.name.endswith(CARRIERS)
    ),
]

MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Absolute names of what a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(dotted: str) -> str:
    """``tracker.log.redis.lag`` → ``streams``; ``tracker.__version__`` → ``__init__``."""
    name = dotted.split(".")[1] if "." in dotted else "__init__"
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__"


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_part_of_the_house_may(path: Path) -> None:
    here = name_of(path)
    allowed = VOCABULARY | {here} | MAY_IMPORT[here]
    if here in VOCABULARY:
        allowed = VOCABULARY
    ours = {part(name) for name in imported(path) if name.split(".")[0] == "tracker"}
    if here == "tap":
        # ``from tracker import config`` names a module, not what is in the package.
        ours.discard("__init__")
    assert ours <= allowed


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_codec_imports_nothing_of_twisted(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] in ("twisted", "zope")]


def test_a_vendor_imports_no_other_vendor() -> None:
    vendors = {path.name for path in (PACKAGE / "vendors").iterdir() if path.is_dir()}
    vendors.discard("__pycache__")
    for vendor in vendors:
        for path in (PACKAGE / "vendors" / vendor).rglob("*.py"):
            for name in imported(path):
                if name.startswith("tracker.vendors."):
                    assert name.split(".")[2] not in vendors - {vendor}, path


def test_every_package_of_ours_is_a_regular_one() -> None:
    for folder in PACKAGE.rglob("*"):
        if folder.is_dir() and list(folder.glob("*.py")):
            assert (folder / "__init__.py").exists(), folder


def test_the_folder_of_plugins_is_no_package() -> None:
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "__init__.py").exists()


def test_redis_names_stand_in_one_module_only() -> None:
    spelled = ('"telemetry:', '"instance:heartbeat', '"commands:', '"connections:registry')
    for path in MODULES:
        if path.name != "keys.py":
            text = path.read_text(encoding="utf-8")
            assert not [name for name in spelled if name in text], path
