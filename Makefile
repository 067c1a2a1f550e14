# Two commands: `make demo` and `make test`. Each sets up what it needs, once.
.PHONY: demo test docs torture setup lint types toys clean

demo: setup
	@.venv/bin/drupe run --config examples/phi3-emotion/olive-config.json

# Two workers, for most tests wait for other processes; a file's tests stay together and in order,
# and those of whole jobs come first. WORKERS=0: one after the other, in one process.
WORKERS = 2
test: lint types toys
	@.venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# The documentation as a site in build/site; a warning is an error.
docs: setup
	@.venv/bin/python scripts/pass_pages.py
	@.venv/bin/python -m mkdocs build --strict --quiet

# kill -9 at a hundred random moments of the demo; DRUPE_TORTURE_SEED=N repeats one's moments.
torture: toys
	@DRUPE_TORTURE=100 .venv/bin/python -m pytest tests/e2e/test_torture.py

# The plug-in that the tests install, as a third party would have it; not part of `make setup`.
toys: setup
	@.venv/bin/python -c "import drupe_toys" 2>/dev/null || .venv/bin/python -m pip install --quiet \
		--no-index --no-deps --no-build-isolation --editable tests/toys

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: setup
	@.venv/bin/mypy

setup:
	@scripts/setup

clean:
	rm -rf .venv examples/phi3-emotion/models examples/phi3-emotion/cache
