"""Tests neither sleep nor pass without asserting, and product code swallows nothing silently."""

import ast
from collections import Counter

from source_tree import Source, called_name, sources

SLEEPS = {"time.sleep", "asyncio.sleep", "sleep"}
# What counts as an assertion besides the statement itself: a context or call of pytest that fails by itself, an assert
# method of a state machine's rules, or one of the repository's own checks (their names start with these words).
CHECK_PREFIXES = ("assert_", "check_", "expect_", "_assert", "_check", "_expect", "run_state_machine", "pytest.raises")
CHECK_NAMES = {"pytest.raises", "pytest.warns", "pytest.fail", "raises", "wait_until", "eventually"}


def test_no_test_sleeps() -> None:
    found = []
    for source in sources("tests"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and called_name(node) in SLEEPS and not _yields_to_the_loop(node):
                found.append(f"{source.name}:{node.lineno}")
    assert found == []


def test_every_test_asserts() -> None:
    found = []
    for source in sources("tests"):
        if not source.path.name.startswith("test_"):
            continue
        checks = _local_checks(source)
        for function in source.functions():
            if function.name.startswith("test_") and not _asserts(function, checks):
                found.append(f"{source.name}:{function.name}")
    assert found == []


def test_no_wide_exception_is_swallowed() -> None:
    found = []
    for source in sources("src", "benchmarks"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and _is_wide(node.type) and _does_nothing(node.body):
                found.append(f"{source.name}:{node.lineno}")
            if isinstance(node, ast.Call) and called_name(node).endswith("suppress") and any(map(_is_wide, node.args)):
                found.append(f"{source.name}:{node.lineno}")
    assert found == []


def test_nothing_is_left_for_later() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XXX" + ":", "NotImplemented" + "Error")
    found = [f"{s.name}: {word}" for s in sources("src", "tests", "benchmarks") for word in words if word in s.text]
    assert found == []


def test_test_files_have_names_of_their_own() -> None:
    counted = Counter(source.path.name for source in sources("tests") if source.path.name.startswith("test_"))
    assert [name for name, times in counted.items() if times > 1] == []


def _yields_to_the_loop(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _asserts(function: ast.AST, checks: set[str]) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = called_name(node)
            last = name.rsplit(".", 1)[-1]
            if name in CHECK_NAMES or last in checks or last in CHECK_NAMES or last.startswith(CHECK_PREFIXES):
                return True
    return False


def _local_checks(source: Source) -> set[str]:
    """Functions of this file that assert, by themselves or through one another: a test may call them instead."""
    functions = [function for function in source.functions() if not function.name.startswith("test_")]
    checks: set[str] = set()
    while True:
        found = {function.name for function in functions if _asserts(function, checks)}
        if found == checks:
            return checks
        checks = found


def _is_wide(node: ast.expr | None) -> bool:
    if node is None:
        return True
    names = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )
