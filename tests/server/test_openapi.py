"""What the server says of itself in OpenAPI, and requests made from it, fitting and not: none makes it fail."""

import hypothesis
import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'sambay[dev]'")

EXAMPLES = 15
"""Of each operation, of each kind."""


@pytest.fixture(scope="module")
def schema(tiny):
    described = tiny.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    return schemathesis.openapi.from_dict(described)


def operations(schema):
    return [found.ok() for found in schema.get_all_operations()]


def test_every_operation_is_described(tiny, schema):
    found = {(one.method.upper(), one.path) for one in operations(schema)}
    assert {("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/health")} <= found
    for method, path in found:
        described = schema.raw_schema["paths"][path][method.lower()]
        assert described["summary"], path
        assert described["description"], path


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_makes_the_server_fail(tiny, schema, mode):
    kind = schemathesis.GenerationMode(mode)
    statuses = set()
    for operation in operations(schema):

        @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
        @hypothesis.given(case=operation.as_strategy(generation_mode=kind))
        def ask(case):
            response = case.call(base_url=str(tiny.base_url), timeout=60)
            statuses.add(response.status_code)
            assert response.status_code < 500, (case.method, case.path, case.body, response.text)

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            continue  # nothing can be wrong with a request that has no parameters
    assert mode == "negative" or 200 in statuses
    assert mode == "positive" or statuses & {400, 404, 405, 422}
    assert tiny.get("/health").status_code == 200
