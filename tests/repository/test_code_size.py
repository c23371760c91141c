"""Files and functions stay small enough to be read in one pass; the aim (300 and 50) is in docs/contributing.md."""

from source_tree import sources

FILE_LINES = 500
FUNCTION_LINES = 70


def test_no_file_is_longer_than_the_limit() -> None:
    lengths = {source.name: source.text.count("\n") for source in sources("src", "tests", "benchmarks")}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_the_limit() -> None:
    long = {
        f"{source.name}:{function.name}": function.end_lineno - function.lineno + 1
        for source in sources("src", "tests", "benchmarks")
        for function in source.functions()
        if function.end_lineno is not None and function.end_lineno - function.lineno + 1 > FUNCTION_LINES
    }
    assert long == {}


def test_nothing_is_called_by_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "helpers", "manager", "misc", "common"}
    found = [source.name for source in sources("src", "tests", "benchmarks") if source.path.stem in empty_names]
    assert found == []
