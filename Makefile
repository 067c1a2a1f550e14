# Two commands: `make demo` and `make test`. Each sets up what it needs, once.
.PHONY: demo test setup lint types clean

demo: setup
	@.venv/bin/drupe run --config examples/phi3-emotion/olive-config.json

test: lint types
	@.venv/bin/python -m pytest

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: setup
	@.venv/bin/mypy

setup:
	@scripts/setup

clean:
	rm -rf .venv examples/phi3-emotion/models examples/phi3-emotion/cache
